"""Keeps a store equal to what the API server has: a paged list once, then a watch for ever.

What must hold: no change is missed, and silence is noticed. A watch that ends, for whatever reason, goes on from the last version seen;
only when the server no longer has that version (410) everything is listed again. `last_heard` moves with every list, event, bookmark and
refusal, so that the liveness probe can tell a quiet cluster from a dead connection.

The pauses are client-go's: none after a watch that ran its time, a growing one after a failure, and also after a watch that ended within a
second and had shown nothing (tools/cache/reflector.go), which a proxy in front of the server may do to each of them. Unlike client-go, it
is not listed again for that: the version is still good.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import Object, Resource
from gentrain_operator.kube.store import Store, key_of

log = logging.getLogger(__name__)

PAGE = 100  # a RayJob is tens of kilobytes as it comes, and a page is in memory whole
WATCH_SECONDS = (240, 300)  # drawn anew for each watch, so that watches do not all end at once
BACKOFF = (0.5, 30.0)
VERY_SHORT = 1.0  # seconds: a watch that ended before, and had shown nothing, failed


class Stream(Protocol):
    def __iter__(self) -> object: ...
    def close(self) -> None: ...


class Server(Protocol):
    """What a reflector needs of kube.client.Client."""

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object: ...
    def watch(self, resource: Resource, namespace: str | None = None, *, labels: str = "", version: str, seconds: int) -> Stream: ...


class Reflector:
    """One kind of object. `on_change` is told of every object that appeared, changed or went away (its last state); `on_standing` whenever
    the server begins or ceases to refuse the kind here, and when it was listed for the first time.

    `synced` is set once everything was listed. `refused` is what the server answers instead, "" while it answers: not allowed (403), or no
    such kind (404).
    """

    def __init__(
        self,
        client: Server,
        resource: Resource,
        store: Store,
        on_change: Callable[[Object], None],
        *,
        namespace: str | None = None,
        labels: str = "",
        on_standing: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        draw: random.Random | None = None,
    ) -> None:
        self.resource = resource
        self.synced = threading.Event()
        self.refused = ""
        self.restarts = 0
        self.last_heard = clock()
        self._client, self._store, self._on_change, self._on_standing = client, store, on_change, on_standing
        self._namespace, self._labels, self._clock = namespace, labels, clock
        self._random = draw or random.Random()
        self._stopped = threading.Event()
        self._version = ""
        self._failures = 0
        self._watch: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"reflector-{resource.plural}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch and waits for the thread."""
        self._stopped.set()
        watch = self._watch
        if watch is not None:
            watch.close()
        self._thread.join(timeout=10)

    def silence(self) -> float:
        """Seconds since the server was last heard of."""
        return self._clock() - self.last_heard

    def _run(self) -> None:
        while not self._stopped.is_set():
            delay = self.step()
            self._stopped.wait(delay)

    def step(self) -> float:
        """One list where one is due, then one watch until it ends; returns how long to wait before the next. Raises nothing."""
        asked = 0.0
        try:
            if not self._version:
                self._list()
            began = self._clock()
            seen = self._follow()
            if not seen and self._clock() - began < VERY_SHORT and not self._stopped.is_set():
                raise ApiError(0, "VeryShort", "it ended at once and had shown nothing")
            self._failures = 0
            return 0.0
        except ApiError as error:
            if self._stopped.is_set():
                return 0.0
            if error.status:
                # An answer, if a refusal: a kind that is not installed (404) is no dead connection, and no restart would mend it.
                self.last_heard = self._clock()
                asked = error.retry_after or 0.0
            if error.expired:
                self._version = ""
            if error.status in (403, 404):
                self._stand(str(error))
            elif self._failures == 0:
                log.warning("watch of %s interrupted: %s", self.resource.plural, error)
        except Exception:
            # A defect of ours, in a handler say. Listing again is the only way to know what was missed.
            log.exception("watch of %s failed", self.resource.plural)
            self._version = ""
        self._failures += 1
        least, most = BACKOFF
        # What the server asks for is a minimum; beyond `most` it could keep us blind for as long as it likes.
        return max(min(asked, most), min(most, least * 2.0 ** min(self._failures - 1, 16)) * self._random.uniform(0.5, 1.0))

    def _list(self) -> None:
        version = ""

        def objects() -> Iterator[Object]:
            """Page by page, so that no more than one is in memory as it came."""
            nonlocal version
            page = ""
            while True:
                answer = self._client.list(self.resource, self._namespace, labels=self._labels, limit=PAGE, page=page)
                self.last_heard = self._clock()
                yield from answer.get("items") or ()
                page, version = answer["metadata"].get("continue", ""), answer["metadata"]["resourceVersion"]
                if not page:
                    return

        for obj in self._store.replace(objects(), self._namespace):
            self._on_change(obj)
        # Only now: were a handler to fail above, the next step has to list again.
        self._version = version
        first = not self.synced.is_set()
        self.synced.set()
        self._stand("", first)

    def _stand(self, refused: str, first: bool = False) -> None:
        """Notes whether the server refuses; told once, not with every retry."""
        turned = bool(self.refused) != bool(refused)
        self.refused = refused
        if turned or first:
            self._on_standing()

    def _follow(self) -> int:
        """Events of one watch, bookmarks included."""
        seconds = self._random.randint(*WATCH_SECONDS)
        self.restarts += 1
        self._watch = self._client.watch(self.resource, self._namespace, labels=self._labels, version=self._version, seconds=seconds)
        if self._stopped.is_set():  # stop() may have looked before there was a watch to close
            self._watch.close()
        self._stand("")
        self.last_heard = self._clock()
        seen = 0
        for event in self._watch:  # type: ignore[attr-defined]
            self.last_heard = self._clock()
            self._failures = 0
            seen += 1
            obj = event["object"]
            if event["type"] == "DELETED":
                self._store.remove(key_of(obj))
                self._on_change(obj)
            elif event["type"] != "BOOKMARK":
                self._on_change(self._store.put(obj))
            self._version = obj["metadata"]["resourceVersion"]
        return seen
