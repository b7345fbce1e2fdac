"""Data as rows with named columns, whatever it is written in.

A form (a folder of images, WebDataset shards, Parquet, JSONL, CSV, text) makes `Records` of a place. Rows lie in blocks: what is read
together because it lies together (a shard, a row group, some hundred files). A row is named by its block and its number in it, and that
never changes while the data does not: order, held-out samples and resuming are built on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from trainjobs.data.places.place import Object, Place, Shelf

Value = Any  # bytes, str, int, float, bool, None, and lists and dicts of these
Kind = Literal["image", "text", "integer", "number", "boolean", "list", "record", "bytes"]


@dataclass(frozen=True)
class Record:
    """`name` is the row's own and unique: by it a sample is held out. "dogs/1.jpg", "train-0001.tar/000123", "part.parquet/17"; of a line
    of text it is the text. `where` is for messages: the object's URI with line, row or member."""

    name: str
    where: str
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Block:
    rows: int
    objects: tuple[Object, ...]  # what must be on this machine to read it


class Records(Protocol):
    """A data set, indexed. Errors are JobErrors GTJ0113 that name object and line, row or member."""

    @property
    def form(self) -> str:
        """images, webdataset, parquet, jsonl, csv or text."""

    @property
    def place(self) -> Place: ...

    @property
    def columns(self) -> Mapping[str, Kind]:
        """The names that there are, in order. In `images` the picture is the column `image`, its folder's name the column `folder`."""

    @property
    def blocks(self) -> Sequence[Block]: ...

    def names(self, block: int) -> Sequence[str]:
        """The names of a block's rows, without their values being read where the index has them."""

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        """Rows of a block, in the order asked for, with these columns. May be called by several threads."""

    def words(self) -> Iterator[str]:
        """What it is: "webdataset, 128 shards, 1,281,167 samples, jpg + cls", then what was left out."""


@runtime_checkable
class Apart(Protocol):
    """Records whose rows lie in objects of their own, so that what is needed of a block is told more closely than by the block."""

    def objects_of(self, block: int, rows: Sequence[int], columns: Collection[str]) -> Sequence[Object] | None:
        """None where a block is fetched as a whole after all."""


@runtime_checkable
class Decoding(Protocol):
    """Records of which a block is decoded whole to read a row, and kept in memory for a while."""

    def decoded(self, block: int, columns: Collection[str]) -> bool:
        """Whether it is in memory now, so that reading it waits for nothing."""


def decoded(records: Records, block: int, columns: Collection[str]) -> bool:
    """Whether a block is in memory now, decoded."""
    return isinstance(records, Decoding) and records.decoded(block, columns)


def objects_of(records: Records, block: int, rows: Sequence[int], columns: Collection[str]) -> Sequence[Object] | None:
    """The objects that these columns of these rows lie in; None where a block is fetched as a whole."""
    return records.objects_of(block, rows, columns) if isinstance(records, Apart) else None


Bad = Callable[[str, str], None]  # (where, why): a sample that cannot be read, where data.onBadSample lets it be left out
