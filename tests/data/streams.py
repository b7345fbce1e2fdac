"""Records of pictures in memory, and a shelf that says what was asked of it: what streams are made of, without a disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Block, Kind, Record
from trainjobs.data.places.place import Object, Place
from trainjobs.data.rows import divided
from trainjobs.data.streamed import StreamedImages

SIZE = 8


def picture(number: int) -> bytes:
    """A PNG of one grey that tells its number, up to 255."""
    file = BytesIO()
    Image.fromarray(np.full((SIZE, SIZE), number % 256, np.uint8)).save(file, "png")
    return file.getvalue()


class Kept:
    """A shelf on which everything lies; `asked` are the names of objects to be fetched ahead, `held` of those that were held together."""

    closed = False

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.held: list[list[str]] = []

    def hold(self, place: Place, objects: Sequence[Object]) -> AbstractContextManager[list[Path]]:
        self.held.append([one.name for one in objects])
        return nullcontext([Path(one.name) for one in objects])

    def ahead(self, place: Place, objects: Sequence[Object]) -> None:
        self.asked.append([one.name for one in objects])

    def close(self) -> None:
        self.closed = True


@dataclass
class Pictures:
    """Blocks of so many rows, each an object of its own; row r of all is `picture(r)` with label r % 3 and a caption. `broken` are rows
    that read bad bytes, `torn` rows of which the reading itself fails. `reads` counts what was asked for, by block."""

    lengths: Sequence[int]
    broken: Collection[int] = ()
    torn: Collection[int] = ()
    remote: bool = True
    reads: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    form = "webdataset"
    place: Any = None
    columns: Mapping[str, Kind] = field(default_factory=lambda: {"png": "image", "cls": "integer", "txt": "text"})

    @property
    def blocks(self) -> Sequence[Block]:
        path = None if self.remote else Path("/data")
        return tuple(Block(rows, (Object(f"{number:03d}.tar", 1000 * rows, "1", path),)) for number, rows in enumerate(self.lengths))

    def number(self, block: int, row: int) -> int:
        return sum(self.lengths[:block]) + row

    def names(self, block: int) -> Sequence[str]:
        return [f"{block:03d}.tar/{row}" for row in range(self.lengths[block])]

    def read(self, shelf: Any, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        self.reads.append((block, tuple(rows)))
        return [self._record(block, row, columns) for row in rows]

    def _record(self, block: int, row: int, columns: Collection[str]) -> Record:
        number = self.number(block, row)
        where = f"s3://bucket/{block:03d}.tar/{row}"
        if number in self.torn:
            raise JobError("GTJ0113", "a member is cut short", where=where, how="write the shard again")
        data = b"<html>" if number in self.broken else picture(number)
        values = {"png": data, "cls": number % 3, "txt": f"number {number}"}
        return Record(f"{block:03d}.tar/{row}", where, {name: values[name] for name in columns})

    def words(self) -> Iterator[str]:
        yield "webdataset"


def settings(holdout: float = 0.0, **more: Any) -> Data:
    return Data.model_validate(
        {"source": "s3://bucket/data", "images": {"size": SIZE, "channels": 1, **more.pop("images", {})}, "holdout": holdout, **more}
    )


def streamed(records: Pictures, order: Any, holdout: float = 0.0, **more: Any) -> StreamedImages:
    data = settings(holdout, images=more.pop("images", {}))
    train, held = divided(records, data, "image")
    shelf, roles = more.pop("shelf", None) or Kept(), more.pop("roles", {"image": "png", "label": "cls"})
    return StreamedImages.of(train, held, order, data, shelf, roles, **more)


def greys(batch: Mapping[str, Any]) -> list[int]:
    """The numbers of the pictures of a batch."""
    return [round(float(value + 1) * 127.5) for value in batch["image"][:, 0, 0, 0]]
