"""What the trainer reports on /progress: untrusted, because it comes out of a pod that runs a user's code.

Read over a plain socket, under one deadline for all of it and up to a limit, so that a server which sends a byte a second, or a
gigabyte, costs no more than an honest one. Nothing reaches the status that is not of the expected type and size.
"""

from __future__ import annotations

import datetime
import json
import math
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object

LIMIT = 16 * 1024
TIMEOUT = 2.0


class Unreadable(Exception):
    """No report could be had; the message says why. `refused`: at once, because nobody serves it yet."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


def fetch(address: str, port: int, clock: Callable[[], float] = time.monotonic, timeout: float = TIMEOUT) -> Object:
    """GET /progress as a JSON object. Unreadable after `timeout` seconds in all, over LIMIT bytes, or when it is anything else."""
    deadline = clock() + timeout
    data = b""
    try:
        with socket.create_connection((address, port), timeout) as connection:
            connection.sendall(b"GET /progress HTTP/1.0\r\nAccept: application/json\r\n\r\n")
            while True:
                left = deadline - clock()
                if left <= 0:
                    raise Unreadable(f"no whole report within {timeout:g} s")
                connection.settimeout(left)
                chunk = connection.recv(LIMIT)
                if not chunk:
                    break
                data += chunk
                if len(data) > LIMIT:
                    raise Unreadable(f"a report of more than {LIMIT} bytes")
    except TimeoutError as error:
        raise Unreadable(f"no whole report within {timeout:g} s") from error
    except OSError as error:
        raise Unreadable(str(error) or type(error).__name__, refused=isinstance(error, ConnectionRefusedError)) from error
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200" not in head.split(b"\r\n")[0]:
        raise Unreadable(f"the answer was {clean(head[:60].decode(errors='replace'))!r}")
    try:
        report = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable("the report is not JSON") from error
    if not isinstance(report, dict):
        raise Unreadable("the report is not an object")
    return report


def progress(report: Mapping[str, Any], total_steps: int) -> Object:
    """`status.progress` from a report: what is missing or nonsense is left out. `total_steps` is the spec's."""
    step = min(_count(report.get("step")) or 0, total_steps)
    percent = 100 * step // total_steps
    throughput = report.get("throughput")
    rate = _number(throughput.get("value")) if isinstance(throughput, dict) else None
    metrics = report.get("metrics")
    # What the trainer says while it trains is of the moment; this is why it does not.
    message = _text(report.get("message"), 512) if report.get("phase") in ("Stopping", "Recovering") else ""
    out: Object = {
        "step": step,
        "totalSteps": total_steps,
        "samples": _count(report.get("samples")),
        "percent": percent,
        "etaSeconds": _count(_floor(report.get("etaSeconds"))),
        "updatedAt": _time(report.get("updatedAt")),
        "metrics": _metrics(metrics) if isinstance(metrics, dict) else None,
        "display": f"{percent}% {step}/{total_steps}",
        "message": message or None,
    }
    if rate is not None and isinstance(throughput, dict):
        out["throughput"] = {"value": rate, "unit": _text(throughput.get("unit"), 64) or "samples/s"}
    return {name: value for name, value in out.items() if value is not None}


def checkpoint(report: Mapping[str, Any]) -> Object | None:
    """`status.checkpoint` from a report, if it names one."""
    given = report.get("checkpoint")
    if not isinstance(given, dict) or _count(given.get("step")) is None or not _text(given.get("uri"), 1024):
        return None
    out = {
        "uri": _text(given["uri"], 1024),
        "step": given["step"],
        "committedAt": _time(given.get("committedAt")),
        "sizeBytes": _count(given.get("sizeBytes")),
        "fitsGrace": given.get("fitsGrace") if isinstance(given.get("fitsGrace"), bool) else None,
    }
    return {name: value for name, value in out.items() if value is not None}


def unsaved(report: Mapping[str, Any]) -> str:
    """Why the last checkpoint could not be written; "" when it could."""
    return _text(report.get("checkpointFailure"), 512)


def warning(report: Mapping[str, Any]) -> str:
    """What is not well with the training, which goes on; "" where all is."""
    return _text(report.get("warning"), 512)


def failure(report: Mapping[str, Any]) -> Object | None:
    """The trainer's failure record, if it has failed."""
    record = report.get("failure")
    return record if isinstance(record, dict) else None


def stage(report: Mapping[str, Any]) -> int | None:
    value = report.get("stage")
    return value if type(value) is int and 0 <= value <= 3 else None


def workers(report: Mapping[str, Any], low: int, high: int) -> int | None:
    """How many workers the group has, if that is a number the job allows."""
    value = _count(report.get("workers"))
    return value if value is not None and low <= value <= high else None


def _metrics(metrics: Mapping[str, Any]) -> list[Object] | None:
    """The first 32 by name. Names that become the same by being cleaned and cut are one: the server takes no two of a name."""
    found: dict[str, Object] = {}
    for name, value in sorted(metrics.items()):
        text, short = _number(value), clean(name, 64)
        if text is not None and short and short not in found and len(found) < 32:
            found[short] = {"name": short, "value": text}
    return list(found.values()) or None


def _number(value: Any) -> str | None:
    """A number as text of four significant digits; NaN and infinity as such: people want to see them."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if abs(value) > 10**30:  # also integers that no float can hold
        return "inf" if value > 0 else "-inf"
    return f"{value:.4g}"


def _floor(value: Any) -> Any:
    return int(value) if isinstance(value, float) and math.isfinite(value) else value


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _text(value: Any, limit: int) -> str:
    return clean(value, limit) if isinstance(value, str) else ""


def _time(value: Any) -> str | None:
    """Seconds since 1970 as Kubernetes writes times."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 4e9:
        return None
    return datetime.datetime.fromtimestamp(int(value), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
