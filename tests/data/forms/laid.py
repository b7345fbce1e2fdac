"""Places and shelves for tests of forms: files of a folder, as they are, or as a bucket that gives ranges and counts what it gives."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainjobs.api.data import Data
from trainjobs.data.forms.open import open_records
from trainjobs.data.forms.records import Record, Records
from trainjobs.data.places.place import ALONE, Listed, Object, Ranks


@dataclass
class Laid:
    """Every file under `root`. Where `here` is False, they have no path, and are read by ranges."""

    root: Path
    here: bool = True
    reads: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"file://{self.root}" if self.here else "s3://bucket/data"

    def listed(self) -> Listed:
        paths = sorted(path for path in self.root.rglob("*") if path.is_file())
        return Listed(tuple(self._object(path) for path in paths))

    def _object(self, path: Path) -> Object:
        status = path.stat()
        name = path.relative_to(self.root).as_posix()
        return Object(name, status.st_size, f"{status.st_size}-{status.st_mtime_ns}", path if self.here else None)

    def read(self, found: Object, start: int, stop: int) -> bytes:
        self.reads.append((found.name, start, stop))
        return (self.root / found.name).read_bytes()[start:stop]

    def fetch(self, found: Object, to: Path) -> None:
        to.write_bytes((self.root / found.name).read_bytes())

    def contents(self, found: Object) -> bytes:
        return (self.root / found.name).read_bytes()

    def where(self, found: Object) -> str:
        return str(self.root / found.name) if self.here else f"{self.uri}/{found.name}"


@dataclass
class Board:
    """A shelf of which nothing is dropped."""

    folder: Path
    held: list[str] = field(default_factory=list)

    @contextmanager
    def hold(self, place: Any, objects: Sequence[Object]) -> Iterator[list[Path]]:
        paths = []
        for one in objects:
            path = one.path or self.folder / f"{abs(hash((one.name, one.tag))):x}"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                place.fetch(one, path)
            self.held.append(one.name)
            paths.append(path)
        yield paths

    def contents(self, place: Any, objects: Sequence[Object]) -> list[bytes]:
        with self.hold(place, objects) as paths:
            return [path.read_bytes() for path in paths]

    def ahead(self, place: Any, objects: Sequence[Object]) -> None:
        raise AssertionError("nobody asks")


class Group:
    """Ranks that are threads."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def rank(self, number: int) -> Rank:
        return Rank(self, number, len(self.values))


@dataclass
class Rank:
    group: Group
    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        self.group.values[self.rank] = value
        self.group.barrier.wait()
        values = list(self.group.values)
        self.group.barrier.wait()
        return values


def data(**fields: Any) -> Data:
    return Data.model_validate({"source": "file:///data", **fields})


def opened(root: Path, here: bool = True, ranks: Ranks = ALONE, wants: Any = "", **fields: Any) -> tuple[Records, Board]:
    place, board = Laid(root, here), Board(root.parent / "shelf")
    return open_records(place, place.listed(), data(**fields), board, root.parent / "cache", ranks, wants=wants), board


def everything(records: Records, board: Board, *columns: str) -> list[Record]:
    """All rows, with all columns where none is named."""
    wanted = columns or tuple(records.columns)
    return [record for number, block in enumerate(records.blocks) for record in records.read(board, number, range(block.rows), wanted)]


def tar(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, payload in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            archive.addfile(info, io.BytesIO(payload))
    return path
