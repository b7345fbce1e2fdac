"""Events for people: what happened to a job and when, shown by `kubectl describe`.

An event is a courtesy. It is written by a thread of its own, so that a slow server delays no job, and when it cannot be written that is
logged once and forgotten. A repeated event becomes one object with a count.
"""

from __future__ import annotations

import datetime
import logging
import queue
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import EVENTS, Object, Resource

log = logging.getLogger(__name__)

REMEMBERED = 4096
SAME_FOR = 600.0  # seconds after which a repetition is an event of its own
NOTE_LENGTH = 1024
READ = 16_384  # characters of a text that others wrote: what stands behind them is not read, nor cleaned


class Server(Protocol):
    """What events need of kube.client.Client."""

    def create(self, resource: Resource, namespace: str | None, body: Object) -> Object: ...
    def merge(self, resource: Resource, namespace: str | None, name: str, patch: Object) -> Object: ...


@dataclass(frozen=True)
class Event:
    """`reason` and `action` in CamelCase; `note` for people."""

    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


@dataclass
class _Series:
    name: str
    count: int
    at: float


def clean(text: str, limit: int = NOTE_LENGTH) -> str:
    """Text from who knows where, fit for a terminal and a status field: one line, nothing unprintable, at most `limit` characters. No more
    than the first READ characters of it are looked at."""
    cut = len(text) > READ
    text = text[:READ]
    printable = text if text.isprintable() else "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(printable.split())
    return line if len(line) <= limit and not cut else line[: limit - 1] + "…"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Recorder:
    """Takes events from any thread."""

    def __init__(
        self, client: Server, instance: str, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], datetime.datetime] = _now
    ) -> None:
        self._client, self._instance, self._clock, self._wall = client, instance, clock, wall
        self._waiting: queue.Queue[tuple[Object, Event] | None] = queue.Queue(maxsize=1000)
        self._series: OrderedDict[tuple[str, Event], _Series] = OrderedDict()
        self._complained: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Writes what waits, for five seconds at most."""
        self._put(None)
        self._thread.join(timeout=5)

    def record(self, obj: Object, event: Event) -> None:
        """Never blocks, never raises; with a thousand events waiting, further ones are dropped."""
        self._put((obj, event))

    def write(self, obj: Object, event: Event) -> None:
        """Writes one event now."""
        namespace, key, now = obj["metadata"]["namespace"], (obj["metadata"]["uid"], event), self._clock()
        series = self._series.get(key)
        try:
            if series and now - series.at < SAME_FOR:
                series.count, series.at = series.count + 1, now
                observed = {"count": series.count, "lastObservedTime": _micro(self._wall())}
                self._client.merge(EVENTS, namespace, series.name, {"series": observed})
            else:
                body = self._body(obj, event)
                self._client.create(EVENTS, namespace, body)
                self._series[key] = _Series(body["metadata"]["name"], 1, now)
        except ApiError as error:
            self._series.pop(key, None)
            if error.status not in self._complained:
                self._complained.add(error.status)
                log.warning("events cannot be written: %s", error)
        if key in self._series:
            self._series.move_to_end(key)
        while len(self._series) > REMEMBERED:
            self._series.popitem(last=False)

    def _body(self, obj: Object, event: Event) -> Object:
        metadata = obj["metadata"]
        name = f"{metadata['name'][:236].rstrip('-.')}.{uuid.uuid4().hex[:16]}"
        regarding = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "eventTime": _micro(self._wall()),
            "reportingController": "gentrain.dev/operator",
            "reportingInstance": self._instance[:128],
            "type": event.type,
            "reason": event.reason,
            "action": event.action,
            "note": clean(event.note),
            "regarding": regarding,
        }

    def _put(self, item: tuple[Object, Event] | None) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            log.debug("event dropped")

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self.write(*item)
            except Exception:
                log.exception("event lost")


def _micro(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
