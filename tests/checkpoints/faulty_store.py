"""A store in memory, and clients of it whose requests fail in every way that a network, a disk and a kill have.

A client counts its operations from 0; `faults` says what happens at which. Uploading three files are three operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from blake3 import blake3

from trainjobs.stores.store import Entry, Missing, Stored, StoreError

Fault = Literal["request lost", "answer lost", "late", "full", "crash before", "crash after", "other"]
T = TypeVar("T")
FAULTS: tuple[Fault, ...] = ("request lost", "answer lost", "late", "full", "crash before", "crash after", "other")


class Crash(BaseException):
    """The process is dead: no handler for Exception may act."""


class MemoryStore:
    """`changed` is called with all objects after every change. `late` requests happen some operations after they were given up."""

    def __init__(self, changed: Callable[[Mapping[str, bytes]], None] = lambda objects: None) -> None:
        self.objects: dict[str, bytes] = {}
        self.changed = changed
        self.late: list[tuple[int, Callable[[], object]]] = []

    def tick(self) -> None:
        due = [act for left, act in self.late if left <= 0]
        self.late = [(left - 1, act) for left, act in self.late if left > 0]
        for act in due:
            act()

    def put(self, key: str, data: bytes, *, absent: bool) -> bool:
        if absent and key in self.objects:
            return False
        self.objects[key] = data
        self.changed(self.objects)
        return True

    def remove(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self.changed(self.objects)


class Client:
    """A BlobStore. `other` is called at the operations with that fault: another process gets a turn there."""

    uri = "memory:///"

    def __init__(self, store: MemoryStore, faults: Mapping[int, Fault] | None = None, other: Callable[[], None] | None = None) -> None:
        self.store, self.faults, self.other = store, dict(faults or {}), other
        self.count, self.dead = 0, False
        self.journal: list[str] = []

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._do("create", key, lambda: self.store.put(key, data, absent=True))

    def upload(self, files: Sequence[tuple[Path, str]]) -> list[Stored]:
        return [self._do("upload", key, lambda path=path, key=key: self._upload(path, key)) for path, key in files]

    def get(self, key: str) -> bytes:
        return self._do("get", key, lambda: self._get(key))

    def read(self, key: str) -> Iterator[bytes]:
        data = self._do("read", key, lambda: self._get(key))
        yield data[: len(data) // 2]
        yield data[len(data) // 2 :]

    def entries(self, folder: str) -> list[Entry]:
        return self._do("entries", folder, lambda: [Entry(key, len(self.store.objects[key])) for key in self._below(folder)])

    def folders(self, folder: str) -> list[str]:
        names = (key.removeprefix(f"{folder}/").split("/") for key in self._below(folder))
        return self._do("folders", folder, lambda: sorted({f"{folder}/{parts[0]}" for parts in names if len(parts) > 1}))

    def clear(self, folder: str) -> None:
        for key in self._below(folder):
            self._do("delete", key, lambda key=key: self.store.remove(key))

    def _upload(self, path: Path, key: str) -> Stored:
        data = path.read_bytes()
        self.store.put(key, data, absent=False)
        return Stored(len(data), "blake3:" + blake3(data).hexdigest())

    def _get(self, key: str) -> bytes:
        if key not in self.store.objects:
            raise Missing(key)
        return self.store.objects[key]

    def _below(self, folder: str) -> list[str]:
        return sorted(key for key in self.store.objects if key.startswith(f"{folder}/"))

    def _do(self, verb: str, key: str, act: Callable[[], T]) -> T:
        if self.dead:
            raise Crash
        self.store.tick()
        self.journal.append(f"{verb} {key}")
        fault = self.faults.get(self.count)
        self.count += 1
        if fault == "other" and self.other is not None:
            self.other()
        elif fault == "request lost":
            raise StoreError(key, "connection refused")
        elif fault == "full":
            raise StoreError(key, "no space left", "full")
        elif fault == "late":
            if verb in ("create", "upload", "delete"):
                self.store.late.append((2, act))
            raise StoreError(key, "timed out")
        elif fault == "crash before":
            self.dead = True
            raise Crash
        result = act()
        if fault == "answer lost":
            raise StoreError(key, "connection reset")
        if fault == "crash after":
            self.dead = True
            raise Crash
        return result
