"""The definition of a job that the server serves, beside the operator's own: what is missing there, and a status without it.

Helm does not upgrade definitions that it did not bring, and people forget them. A field of the status that the server does not know fails
the whole write, so it is left out and said, on /readyz, in the log and in the status.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import Object
from trainjobs.api.crd import structural
from trainjobs.api.errors import sentences
from trainjobs.api.job import Spec
from trainjobs.api.status import Status

log = logging.getLogger(__name__)

Schema = Mapping[str, Any]
EVERY = 600.0  # seconds after which the server is asked again
RETRY = 10.0  # after it could not be asked, or refused a status for a field
NAMED = 6  # fields in the message


def missing(ours: Schema, served: Schema, path: str = "") -> Iterator[str]:
    """The fields, dotted, that `served` does not have; of a field that is missing whole, only itself."""
    if "properties" in ours:
        theirs = served.get("properties")
        if theirs is None:
            return  # everything is let through, or it is no object there
        for name, inner in ours["properties"].items():
            if name not in theirs:
                yield f"{path}.{name}"
            else:
                yield from missing(inner, theirs[name], f"{path}.{name}")
    elif "items" in ours:
        yield from missing(ours["items"], served.get("items") or {}, f"{path}[]")


def fitting(value: Any, served: Schema) -> Any:
    """The value without the fields that `served` does not know."""
    if isinstance(value, dict) and "properties" in served:
        return {name: fitting(inner, served["properties"][name]) for name, inner in value.items() if name in served["properties"]}
    if isinstance(value, list) and "items" in served:
        return [fitting(inner, served["items"]) for inner in value]
    return value


class Served:
    """What the server serves, asked for by `fetch` (the schema of a job, or ApiError). Safe to use from many threads.

    Until the server has answered nothing is left out: a server that cannot be asked is no older one.
    """

    def __init__(self, fetch: Callable[[], Object], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._clock = fetch, clock
        self._lock = threading.Lock()
        self._asked, self._known = float("-inf"), False
        self._status: Schema = {}
        self._told = ""
        self._ours = {"properties": {"spec": structural(Spec), "status": structural(Status)}}

    def look(self, soon: bool = False) -> None:
        """Asks the server if that is due; `soon`: a write was refused, so what is known may be outdated."""
        with self._lock:
            now = self._clock()
            if now < self._asked + (RETRY if soon or not self._known else EVERY):
                return
            self._asked = now
        try:
            schema = self._fetch()
        except ApiError as error:
            log.warning("cannot ask for the definition of a job, so nothing is known of its age: %s", error)
            return
        lacking = list(missing(self._ours, schema))
        told = note(lacking)
        with self._lock:
            self._known = True
            changed, self._told = told != self._told, told
            self._status = schema.get("properties", {}).get("status", {}) if lacking else {}
        if changed:
            log.warning("%s", told or "the definition of a job has all fields again")

    def note(self) -> str:
        """GTJ0301 and which fields are missing; "" when none is."""
        with self._lock:
            return self._told

    def keeps(self, path: str) -> bool:
        """Whether a field of the status, such as cost.startOf, would be there when it is read back."""
        with self._lock:
            found: Any = self._status
        for name in path.split("."):
            fields = found.get("properties")
            if fields is None:
                return True
            if name not in fields:
                return False
            found = fields[name]
        return True

    def fitting(self, status: Object) -> Object:
        """The status as the server takes it; with something left out, the condition Accepted says what."""
        with self._lock:
            served, told = self._status, self._told
        if not told:
            return status
        conditions = [
            {**one, "message": told} if one["type"] == "Accepted" and one["status"] == "True" else one for one in status["conditions"]
        ]
        out: Object = fitting({**status, "conditions": conditions}, served)
        return out


def note(lacking: list[str]) -> str:
    if not lacking:
        return ""
    more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
    names = ", ".join(path.removeprefix(".") for path in lacking[:NAMED])
    what = "GTJ0301 the cluster's definition of a job is older than the operator; it goes on without"
    return sentences(f"{what} {names}{more}", "Apply the chart's definitions")
