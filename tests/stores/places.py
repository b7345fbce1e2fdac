"""Where the commit machine runs with faults at the single requests of a bucket: in memory, or on a real server.

The code under test is all of `trainjobs.checkpoints` from ObjectStore up, and on a server the SDK and the wire below it, too.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from commit_machine import CommitMachine, Look
from faulty_store import Crash
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from tests.stores.servers import Service
from trainjobs.stores.bucket import Bucket, Found, Kind, Page, Piece, Trouble
from trainjobs.stores.objects import ObjectStore, Patience
from trainjobs.stores.open import open_store

T = TypeVar("T")
Fault = Literal[
    "request lost", "answer lost", "late", "throttled", "server error", "away", "full", "denied", "crash before", "crash after", "other"
]
FAULTS: tuple[Fault, ...] = (
    "request lost", "answer lost", "late", "throttled", "server error", "away", "full", "denied", "crash before", "crash after", "other"
)  # fmt: skip
REFUSALS: dict[Fault, Kind] = {"throttled": "busy", "server error": "busy", "full": "full", "denied": "denied"}
CHANGES = ("put", "delete", "part", "finish")
MOMENTS = ("record", "manifest", "rank manifest", "finish", "delete")  # the requests that matter most, whichever number they have


def moment(verb: str, path: str) -> str:
    if verb == "put" and path.endswith(".json"):
        name = path.rpartition("/")[2]
        return "manifest" if name == "MANIFEST.json" else "rank manifest" if name.startswith("rank-") else "record"
    return verb


class Injected(Exception):
    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble)
        self.trouble = trouble


class FaultyBucket:
    """One process's requests to a bucket, counted from 0, or by their moment; `late` requests arrive two requests after they were given up.

    The lock makes one request after another of the requests that a store makes side by side; another process may act within one.
    """

    def __init__(self, inner: Bucket, late: list[tuple[int, Callable[[], object]]], injected: Counter[str]) -> None:
        self.inner, self.late, self.injected = inner, late, injected
        self.count, self.dead, self.away = 0, False, False
        self._faults: dict[int | str, Fault] = {}
        self.other: Callable[[], None] | None = None
        self.lock = threading.RLock()

    @property
    def faults(self) -> Mapping[int | str, Fault]:
        return self._faults

    @faults.setter
    def faults(self, faults: Mapping[int | str, Fault]) -> None:
        self._faults, self.away = dict(faults), False  # a new action: the store is back

    @property
    def uri(self) -> str:
        return self.inner.uri

    @property
    def prefix(self) -> str:
        return self.inner.prefix

    def put(self, path: str, data: bytes, *, absent: bool) -> None:
        self._do("put", path, lambda: self.inner.put(path, data, absent=absent))

    def get(self, path: str, start: int, length: int, version: str) -> Piece:
        return self._do("get", path, lambda: self.inner.get(path, start, length, version))

    def list(self, prefix: str, token: str = "") -> Page:
        return self._do("list", prefix, lambda: self.inner.list(prefix, token))

    def folders(self, prefix: str) -> Iterable[str]:
        return self._do("list", prefix, lambda: [*self.inner.folders(prefix)])

    def delete(self, path: str) -> None:
        self._do("delete", path, lambda: self.inner.delete(path))

    def begin(self, path: str) -> str:
        return self._do("begin", path, lambda: self.inner.begin(path))

    def part(self, path: str, upload: str, number: int, data: bytes) -> str:
        return self._do("part", path, lambda: self.inner.part(path, upload, number, data))

    def finish(self, path: str, upload: str, parts: Sequence[str]) -> None:
        self._do("finish", path, lambda: self.inner.finish(path, upload, parts))

    def abort(self, path: str, upload: str) -> None:
        self._do("abort", path, lambda: self.inner.abort(path, upload))

    def sweep(self, prefix: str) -> None:
        self._do("sweep", prefix, lambda: self.inner.sweep(prefix))

    def action(self, verb: str) -> str:
        return self.inner.action(verb)

    def identity(self) -> str:
        return "somebody"

    def trouble(self, error: Exception) -> Trouble | None:
        return error.trouble if isinstance(error, Injected) else self.inner.trouble(error)

    def _do(self, verb: str, path: str, act: Callable[[], T]) -> T:
        with self.lock:
            if self.dead:
                raise Crash
            self._arrivals()
            fault = self._faults.pop(self.count, None) or self._faults.pop(moment(verb, path), None)
            self.count += 1
            if fault is not None:
                self.injected[fault] += 1
            if self.away or fault == "away":
                self.away = True
                raise ConnectionError("no route to host")
            if fault == "other" and self.other is not None:
                self.other()
            elif fault == "request lost":
                raise ConnectionError("connection refused")
            elif fault in REFUSALS:
                raise Injected(Trouble(REFUSALS[fault], fault))
            elif fault == "late":
                if verb in CHANGES:
                    self.late.append((2, act))
                raise ConnectionError("timed out")
            elif fault == "crash before":
                self.dead = True
                raise Crash
            result = act()
            if fault == "answer lost":
                raise ConnectionError("connection reset")
            if fault == "crash after":
                self.dead = True
                raise Crash
            return result

    def _arrivals(self) -> None:
        due = [act for left, act in self.late if left <= 0]
        self.late[:] = [(left - 1, act) for left, act in self.late if left > 0]
        for act in due:
            try:
                act()
            except Exception as error:  # nobody hears of it, if it is an answer of the store
                if self.inner.trouble(error) is None:
                    raise


class MemoryBucket:
    """A bucket that does what the clouds promise. `changed` is called with all objects after every change."""

    uri, prefix, paged = "memory://bucket/run", "run", 1000

    def __init__(self, changed: Look) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}  # and their version
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.versions, self.changed = 0, changed

    def put(self, path: str, data: bytes, *, absent: bool) -> None:
        if absent and path in self.objects:
            raise Injected(Trouble("condition", "exists"))
        self.versions += 1
        self.objects[path] = data, self.versions
        self.changed(self.plain())

    def get(self, path: str, start: int, length: int, version: str) -> Piece:
        if path not in self.objects:
            raise Injected(Trouble("missing", "no such key"))
        data, found = self.objects[path]
        if version and version != str(found):
            raise Injected(Trouble("condition", "changed"))
        return Piece(data[start : start + length], len(data), str(found))

    def list(self, prefix: str, token: str = "") -> Page:
        """In pages of `paged` objects; a token is the last path of the page before."""
        below = sorted(path for path in self.objects if path.startswith(prefix) and path > token)
        here = below[: self.paged]
        found = tuple(Found(path, len(self.objects[path][0]), str(self.objects[path][1])) for path in here)
        return Page(found, here[-1] if len(here) < len(below) else "")

    def folders(self, prefix: str) -> Iterable[str]:
        below = [path.removeprefix(prefix).split("/") for path in self.objects if path.startswith(prefix)]
        return {f"{prefix}{parts[0]}/" for parts in below if len(parts) > 1}

    def delete(self, path: str) -> None:
        if self.objects.pop(path, None) is not None:
            self.changed(self.plain())

    def begin(self, path: str) -> str:
        self.versions += 1
        self.uploads[f"{path} {self.versions}"] = {}
        return f"{path} {self.versions}"

    def part(self, path: str, upload: str, number: int, data: bytes) -> str:
        if upload not in self.uploads:
            raise Injected(Trouble("failed", "no such upload"))
        self.uploads[upload][number] = data
        return str(number)

    def finish(self, path: str, upload: str, parts: Sequence[str]) -> None:
        if upload not in self.uploads:
            raise Injected(Trouble("failed", "no such upload"))
        self.put(path, b"".join(self.uploads[upload][int(part)] for part in parts), absent=False)

    def abort(self, path: str, upload: str) -> None:
        self.uploads.pop(upload, None)

    def sweep(self, prefix: str) -> None:
        self.uploads = {upload: parts for upload, parts in self.uploads.items() if not upload.startswith(prefix)}

    def action(self, verb: str) -> str:
        return verb

    def identity(self) -> str:
        return ""

    def trouble(self, error: Exception) -> Trouble | None:
        return error.trouble if isinstance(error, Injected) else None

    def plain(self) -> dict[str, bytes]:
        return {path.removeprefix("run/"): data for path, (data, _) in self.objects.items()}


class BucketPlace:
    """Clients of one bucket. Time is what their pauses add up to: a request is repeated about five times."""

    kinds, least, requests = FAULTS, 1, st.one_of(st.integers(0, 20), st.sampled_from(MOMENTS))

    def __init__(self, injected: Counter[str], part: int, make: Callable[[], Bucket]) -> None:
        self.injected, self.part, self.make = injected, part, make
        self.late: list[tuple[int, Callable[[], object]]] = []

    def connect(self) -> tuple[Any, ObjectStore]:
        bucket = FaultyBucket(self.make(), self.late, self.injected)
        clock = [0.0]

        def pause(seconds: float) -> None:
            clock[0] += seconds

        patience = Patience(3.0, lambda: clock[0], pause, lambda: 0.5)
        return bucket, ObjectStore(bucket, patience, part=self.part, workers=1)

    def settle(self) -> None:
        self.late.clear()


class MemoryBucketPlace(BucketPlace):
    def __init__(self, injected: Counter[str], look: Look) -> None:
        bucket = MemoryBucket(look)
        super().__init__(injected, 64, lambda: bucket)
        self.bucket = bucket

    def objects(self) -> dict[str, bytes]:
        return self.bucket.plain()

    def spoil(self, key: str, data: bytes) -> None:
        self.bucket.objects[f"run/{key}"] = data, self.bucket.objects[f"run/{key}"][1]


class ServerPlace(BucketPlace):
    """`part`: the least size of a part that the server takes. Looking costs a listing, and reading what it says is new or replaced. Its
    client is the costly thing: one for all places of a service."""

    clients: ClassVar[dict[tuple[str, int], Any]] = {}

    def __init__(self, injected: Counter[str], service: Service, part: int) -> None:
        self.service, self.root = service, service.fresh()
        self.known: dict[str, tuple[str, bytes]] = {}
        store = open_store(self.root)
        assert isinstance(store, ObjectStore)
        bucket: Any = store._bucket
        if (service.name, service.port) in self.clients:
            vars(bucket)["_client"] = self.clients[service.name, service.port]
        self.clients[service.name, service.port] = bucket._client
        super().__init__(injected, part, lambda: bucket)

    def objects(self) -> dict[str, bytes]:
        before, self.known = self.known, {}
        for key, version in self.service.versions(self.root).items():
            known, data = before.get(key, ("", b""))
            self.known[key] = version, data if known == version else self.service.read(self.root, key)
        return {key: data for key, (_, data) in self.known.items()}

    def spoil(self, key: str, data: bytes) -> None:
        self.known.pop(key, None)
        self.service.write(self.root, key, data)

    def leave(self) -> dict[str, bytes]:
        """Every byte, read anew; and nothing is left: moto and fake-gcs-server go through all of a bucket to list any of it."""
        found = self.service.load(self.root)
        self.service.delete(self.root, *found)
        return found


class BucketMachine(CommitMachine):
    """In memory: the invariants are looked at after every request that changes something."""

    injected: ClassVar[Counter[str]]
    runs = 0

    def __init__(self) -> None:
        type(self).runs += 1
        super().__init__()

    def make_place(self) -> Any:
        return MemoryBucketPlace(self.injected, self.look)


def memory_machine() -> type[BucketMachine]:
    """A class with counts of its own."""

    class MemoryMachine(BucketMachine):
        injected: ClassVar[Counter[str]] = Counter()

    return MemoryMachine


def server_machine(service: Service, part: int) -> type[BucketMachine]:
    """The same on a server: the invariants are looked at after every action, and within it wherever the machine asks."""

    class ServerMachine(BucketMachine):
        injected: ClassVar[Counter[str]] = Counter()

        def make_place(self) -> Any:
            return ServerPlace(self.injected, service, part)

        def refresh(self) -> None:
            self.look(self.place.objects())

        @invariant()
        def holds(self) -> None:
            self.refresh()

        def teardown(self) -> None:
            super().teardown()
            self.look(self.place.leave())

    return ServerMachine
