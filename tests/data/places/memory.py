"""A bucket in memory, as a place for data reads one: it counts what it is asked, and can be away, refuse, or change meanwhile."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from trainjobs.data.places.bucket import BucketPlace
from trainjobs.data.places.glob import parse
from trainjobs.data.places.place import Listed, Object
from trainjobs.stores.bucket import Found, Page, Piece, Trouble
from trainjobs.stores.patience import Patience


class Said(Exception):
    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.why)
        self.trouble = trouble


class MemoryBucket:
    """`fault` is asked before every request, with its verb and path, and may raise. `md5` tells whether listings have digests."""

    uri, prefix, paged = "s3://bucket/", "", 1000

    def __init__(
        self, objects: dict[str, bytes], *, md5: bool = False, fault: Callable[[str, str], None] = lambda verb, path: None
    ) -> None:
        self.objects, self.md5, self.fault = dict(objects), md5, fault
        self.versions: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()

    def replace(self, path: str, data: bytes) -> None:
        self.objects[path] = data
        self.versions[path] += 1

    def list(self, prefix: str, token: str = "") -> Page:
        self._ask("list", prefix)
        below = sorted(path for path in self.objects if path.startswith(prefix) and path > token)
        here = below[: self.paged]
        found = tuple(
            Found(path, len(self.objects[path]), str(self.versions[path]), hashlib.md5(self.objects[path]).hexdigest() if self.md5 else "")
            for path in here
        )
        return Page(found, here[-1] if len(here) < len(below) else "")

    def get(self, path: str, start: int, length: int, version: str) -> Piece:
        self._ask("get", path)
        if path not in self.objects:
            raise Said(Trouble("missing", "NoSuchKey"))
        if version and version != str(self.versions[path]):
            raise Said(Trouble("condition", "changed"))
        data = self.objects[path]
        return Piece(data[start : start + length], len(data), str(self.versions[path]))

    def action(self, verb: str) -> str:
        return {"get": "s3:GetObject", "list": "s3:ListBucket"}[verb]

    def identity(self) -> str:
        return "arn:aws:iam::1:role/trainer"

    def trouble(self, error: Exception) -> Trouble | None:
        return error.trouble if isinstance(error, Said) else None

    def _ask(self, verb: str, path: str) -> None:
        with self.lock:
            self.asked[verb] += 1
        self.fault(verb, path)


class Clock:
    """Time that passes by pauses alone."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds


def place(bucket: MemoryBucket, path: str = "", *, seconds: float = 20.0, clock: Clock | None = None) -> BucketPlace:
    """s3://bucket/<path>, as `open_place` makes it; nobody sleeps."""
    clock = clock or Clock()
    uri = f"s3://bucket/{path}".rstrip("/")
    return BucketPlace(bucket, uri, path, parse(path), Patience(seconds, clock, clock.pause, lambda: 0.5))  # type: ignore[arg-type]


class Counting(MemoryBucket):
    """`sent` counts the bytes that were read."""

    sent = 0

    def get(self, path: str, start: int, length: int, version: str) -> Piece:
        piece = super().get(path, start, length, version)
        with self.lock:
            self.sent += len(piece.data)
        return piece


class Numbers:
    """A place of objects whose bytes follow from their names, each as large as it says: "3-5000". Written in pieces, as from a network."""

    uri = "numbers://"

    def __init__(self, fault: Callable[[Object], None] = lambda found: None, piece: int = 1 << 12) -> None:
        self.fault, self.piece = fault, piece
        self.fetched: Counter[str] = Counter()

    def listed(self) -> Listed:
        raise NotImplementedError

    def read(self, found: Object, start: int, stop: int) -> bytes:
        return contents(found)[start:stop]

    def fetch(self, found: Object, to: Path) -> None:
        self.fetched[found.name] += 1
        data = contents(found)
        with open(to, "xb", buffering=0) as file:
            for start in range(0, len(data), self.piece):
                file.write(data[start : start + self.piece])
            self.fault(found)

    def contents(self, found: Object) -> bytes:
        self.fetched[found.name] += 1
        self.fault(found)
        return contents(found)

    def where(self, found: Object) -> str:
        return f"numbers://{found.name}"


def number(name: int | str, size: int) -> Object:
    return Object(f"{name}-{size}", size, "1")


def contents(found: Object) -> bytes:
    return (hashlib.sha256(found.name.encode()).digest() * (found.size // 32 + 1))[: found.size]


def on_disk(folder: Path) -> int:
    """Bytes of all objects in a cache, of parts of them, too."""
    total = 0
    for path in below(folder):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def below(folder: Path) -> Iterable[Path]:
    return (folder / "objects").iterdir()
