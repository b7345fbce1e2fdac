"""The part of a data set that `data.where` and `data.limit` leave, and what is found out by looking at one column of all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainjobs.api.errors import JobError
from trainjobs.data.forms.imagefolder import Images
from trainjobs.data.forms.index import Arrays, Indexing, key_of, packed, unpacked
from trainjobs.data.forms.recognise import counted
from trainjobs.data.forms.records import Block, Kind, Record, Records, Value, decoded, objects_of
from trainjobs.data.forms.where import Condition, condition
from trainjobs.data.places.place import Object, Place, Shelf

_VERSION = 1
_TYPES = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
_NUMBER = "\0number"  # no column of anybody is called so


@runtime_checkable
class Columnar(Protocol):
    """Records of which a column is cheaper to be had than rows."""

    def column(self, shelf: Shelf, block: int, name: str) -> Sequence[Value]:
        """All values of a column in a block, in the order of rows."""


def column_of(records: Records, shelf: Shelf, block: int, name: str) -> Sequence[Value]:
    if isinstance(records, Columnar):
        return records.column(shelf, block, name)
    return [record.values[name] for record in records.read(shelf, block, range(records.blocks[block].rows), [name])]


def choose(records: Records, where: str | None, limit: int | None, shelf: Shelf, indexing: Indexing) -> Records:
    """The rows for which `where` holds, and of these the first `limit`, in their blocks and their order.

    JobError GTJ0102 as of where.condition, GTJ0113 when no row is left."""
    if where is None and limit is None:
        return records
    rows: list[npt.NDArray[np.int64] | None] = [None] * len(records.blocks)
    if where is not None:
        asked = condition(where, records.columns)
        keys = [key_of_block(records, block, "where", where) for block in range(len(records.blocks))]
        made = indexing.of(keys, lambda block: {"chosen": _true(records, shelf, block, asked)}, "blocks")
        rows = [arrays["chosen"] for arrays in made]
    left = limit if limit is not None else 1 << 62
    for block, there in enumerate(rows):
        count = records.blocks[block].rows if there is None else len(there)
        if count > left:
            rows[block] = np.arange(left) if there is None else there[:left]
        left -= min(left, count)
    chosen = Chosen(records, tuple(rows), where, limit)
    if not sum(block.rows for block in chosen.blocks):
        why = f"of {counted(sum(block.rows for block in records.blocks), 'sample')} none is as {where} says"
        raise JobError("GTJ0113", "no sample is left", where="data.where", why=why, how="loosen the condition; `gtj data` shows the values")
    return chosen


def distinct(records: Records, column: str, shelf: Shelf, indexing: Indexing, *, lenient: bool = False) -> list[Value]:
    """Every value that a column has, found once by all ranks together; `lenient`: of the rows that can be read and have one."""

    def make(block: int) -> Arrays:
        values = set(_readable(records, shelf, block, column) if lenient else column_of(records, shelf, block, column))
        return {"values": packed(sorted(values, key=lambda value: (value is None, type(value).__name__, value)))}

    inner, keys = records, list[str]()
    for block in range(len(records.blocks)):
        keys.append(key_of_block(inner, block, "distinct", column, *(["lenient"] if lenient else [])))
    found = indexing.of(keys, make, "blocks")
    return list(dict.fromkeys(value for arrays in found for value in unpacked(arrays["values"])))


def _readable(records: Records, shelf: Shelf, block: int, column: str) -> Iterator[Value]:
    for row in range(records.blocks[block].rows):
        try:
            (record,) = records.read(shelf, block, [row], [column])
        except JobError as error:
            if error.code != "GTJ0113":
                raise
            continue
        if (value := record.values[column]) is not None:
            yield value


def key_of_block(records: Records, block: int, *settings: object) -> str:
    """Changes with what a block holds, and with the settings."""
    if isinstance(records, Chosen):
        return key_of_block(records.records, block, *settings, records.where, records.limit, digest_of(records.rows[block]))
    objects = records.blocks[block].objects
    beside = records.beside if isinstance(records, Images) else ""
    return key_of(records.place, objects[0], records.form, _VERSION, [[one.name, one.tag] for one in objects], beside, block, *settings)


def digest_of(rows: npt.NDArray[np.int64] | None) -> str:
    return "" if rows is None else f"{len(rows)}:{int(rows[-1]) if len(rows) else 0}"


def _true(records: Records, shelf: Shelf, block: int, asked: Condition) -> npt.NDArray[np.int64]:
    """int64: the rows of a block for which it holds."""
    columns: dict[str, Any] = {}
    for name in asked.columns:
        values = column_of(records, shelf, block, name)
        try:
            columns[name] = pa.array(values, _TYPES[records.columns[name]], from_pandas=True)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            where = records.place.where(records.blocks[block].objects[0])
            why = " ".join(str(error).split())[:160]
            raise JobError("GTJ0113", f"the column {name} has other values", where=where, why=why, how="mend the values") from error
    count = records.blocks[block].rows
    table = pa.table({**columns, _NUMBER: pa.array(np.arange(count))})
    return np.asarray(table.filter(asked.expression).column(_NUMBER), dtype=np.int64)


@dataclass(frozen=True)
class Chosen:
    """Records with fewer rows: of each block int64 numbers of those that are left, None for all of them."""

    records: Records
    rows: Sequence[npt.NDArray[np.int64] | None] = field(compare=False)
    where: str | None = None
    limit: int | None = None

    @property
    def form(self) -> str:
        return self.records.form

    @property
    def place(self) -> Place:
        return self.records.place

    @property
    def columns(self) -> Mapping[str, Kind]:
        return self.records.columns

    @cached_property
    def blocks(self) -> Sequence[Block]:
        there = zip(self.records.blocks, self.rows, strict=True)
        return tuple(block if rows is None else Block(len(rows), block.objects) for block, rows in there)

    def names(self, block: int) -> Sequence[str]:
        names, rows = self.records.names(block), self.rows[block]
        return names if rows is None else [names[row] for row in rows]

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        kept = self.rows[block]
        return self.records.read(shelf, block, rows if kept is None else [int(kept[row]) for row in rows], columns)

    def objects_of(self, block: int, rows: Sequence[int], columns: Collection[str]) -> Sequence[Object] | None:
        kept = self.rows[block]
        return objects_of(self.records, block, rows if kept is None else [int(kept[row]) for row in rows], columns)

    def decoded(self, block: int, columns: Collection[str]) -> bool:
        return decoded(self.records, block, columns)

    def column(self, shelf: Shelf, block: int, name: str) -> Sequence[Value]:
        values, rows = column_of(self.records, shelf, block, name), self.rows[block]
        return values if rows is None else [values[row] for row in rows]

    def words(self) -> Iterator[str]:
        first, *more = self.records.words()
        count = sum(block.rows for block in self.blocks)
        parts = ([f"where {self.where}"] if self.where else []) + ([f"the first {self.limit:,}"] if self.limit else [])
        yield f"{first}; of these {counted(count, 'sample')} ({', '.join(parts)})"
        yield from more
