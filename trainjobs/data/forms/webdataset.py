"""WebDataset's shards: tar archives in which the members of one key, name up to the first dot, make a sample. Block: a shard.

Grouping and names of columns are those of the `webdataset` package: a column is what follows the first dot, in small letters, and its last
part says how it is decoded. Members without a key (hidden, without a dot, `__like__`) are left out.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trainjobs.api.errors import JobError
from trainjobs.data.forms.index import Arrays, Names, packed, unpacked
from trainjobs.data.forms.ranges import Read, reading
from trainjobs.data.forms.records import Block, Kind, Record, Value
from trainjobs.data.forms.tars import Member
from trainjobs.data.forms.values import json_of, kinds_of, shown, text_of
from trainjobs.data.images import SUFFIXES
from trainjobs.data.places.place import Object, Place, Shelf

TEXT, INTEGER, RECORD = ("txt", "text", "transcript"), ("cls", "cls2", "class", "count", "index", "inx", "id"), ("json", "jsn")
PICTURES = ("jpg", "jpeg", "png", "webp")
SMALL = 32  # bytes of a number that the index keeps


def key_and_column(name: str) -> tuple[str, str] | None:
    """("a/001", "seg.png") of "a/001.seg.PNG"; None of what belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, column = base.partition(".")
    if not stem or not dot or not column or (name.startswith("__") and name.endswith("__")):
        return None
    return f"{folder}{slash}{stem}", column.lower()


def kind_of_column(column: str) -> Kind:
    last = column.rpartition(".")[2]
    if f".{last}" in SUFFIXES:
        return "image"
    if last in TEXT:
        return "text"
    if last in INTEGER:
        return "integer"
    return "record" if last in RECORD else "list" if last == "npy" else "bytes"


def arrays_of(found: Iterator[Member], read: Read, where: str, most: int | None = None) -> Arrays:
    """The index of a shard, of its first `most` samples: names, and where each column of each lies (size -1: nowhere).

    JobError GTJ0113 where one key has a column twice, or its members do not stand together.
    """
    keys, left, fields = dict[str, int](), Counter[str](), dict[str, Kind]()
    broken: dict[str, Any] = {}
    rows: dict[str, list[tuple[int, int, int]]] = {}  # of each column: (row, start, size)
    numbers: dict[str, list[int]] = {}
    kinds: dict[str, Kind] = {}
    last, row = "", -1
    for name, start, size in found:
        if (named := key_and_column(name)) is None:
            left["member without a key"] += 1
            continue
        key, column = named
        if key != last:
            if key in keys:
                why = f"{name} comes after members of other keys"
                how = "sort the members by name when the shard is written: tar --sort=name"
                raise JobError("GTJ0113", "the members of a sample do not stand together", where=where, why=why, how=how)
            if most is not None and len(keys) >= most:
                break
            last, row = key, len(keys)
            keys[key] = row
        if column not in kinds:
            kinds[column], rows[column] = kind_of_column(column), []
        kind, places = kinds[column], rows[column]
        if places and places[-1][0] == row:
            how = "write each column of a sample once"
            raise JobError("GTJ0113", f"the sample {key} has two members .{column}", where=where, why=f"one is {name}", how=how)
        places.append((row, start, size))
        if (kind != "integer" or size > SMALL) and (kind != "record" or row):
            continue
        try:
            data = read(start, start + size)
            if kind == "integer":
                numbers.setdefault(column, []).append(number_of(data, f"{where}/{name}"))
            else:
                fields = fields_of(column, json_of(data, f"{where}/{name}"))
        except JobError as error:
            broken = broken or error.to_dict()
    text, ends = Names.arrays(list(keys))
    arrays: Arrays = {"rows": np.array(len(keys)), "names": text, "ends": ends}
    for number, (column, places) in enumerate(rows.items()):
        starts, sizes = np.zeros(len(keys), np.int64), np.full(len(keys), -1, np.int64)
        table = np.array(places, dtype=np.int64).reshape(-1, 3)
        starts[table[:, 0]], sizes[table[:, 0]] = table[:, 1], table[:, 2]
        arrays |= {f"start{number}": starts, f"size{number}": sizes if sizes.max(initial=0) >= 1 << 31 else sizes.astype(np.int32)}
        if len(numbers.get(column, ())) == len(places) == len(keys):
            arrays[f"number{number}"] = np.array(numbers[column], dtype=np.int64)
    return arrays | {"columns": packed({"columns": list(rows), "fields": fields, "left": left, "broken": broken})}


def fields_of(column: str, value: object) -> dict[str, Kind]:
    """The columns "json.caption" that a member's object has."""
    return kinds_of([{f"{column}.{name}": field for name, field in value.items()}]) if isinstance(value, dict) else {}


def number_of(data: bytes, where: str) -> int:
    try:
        number = int(data)
    except ValueError as error:
        why = f"it is {shown(data[:20].decode('utf-8', 'backslashreplace'))}"
        raise JobError(
            "GTJ0113", "the member holds no whole number", where=where, why=why, how="write a class as a number, or as .txt"
        ) from error
    if not -(2**63) <= number < 2**63:
        raise JobError("GTJ0113", "the number is too large", where=where, why=f"it is {number}", how="write a class as a number from 0 on")
    return number


@dataclass(frozen=True)
class Shard:
    """`starts`, `sizes`: int64 and int32 or int64 [rows] of each column; `numbers`: int64 [rows] of those whose values the index has."""

    object: Object
    names: Names
    starts: Mapping[str, npt.NDArray[Any]]
    sizes: Mapping[str, npt.NDArray[Any]]
    numbers: Mapping[str, npt.NDArray[np.int64]]
    fields: Mapping[str, Kind]
    left: Counter[str]
    broken: Mapping[str, Any]  # the first error of a value that the index looked at, {} where there is none

    @classmethod
    def of(cls, found: Object, arrays: Arrays) -> Shard:
        told = unpacked(arrays["columns"])
        columns = list(enumerate(told["columns"]))
        return cls(
            found,
            Names(arrays["names"], arrays["ends"]),
            {name: arrays[f"start{number}"] for number, name in columns},
            {name: arrays[f"size{number}"] for number, name in columns},
            {name: arrays[f"number{number}"] for number, name in columns if f"number{number}" in arrays},
            told["fields"],
            Counter(told["left"]),
            told["broken"],
        )

    def count(self, column: str) -> int:
        """How many samples have it."""
        return int((self.sizes[column] >= 0).sum()) if column in self.sizes else 0


@dataclass(frozen=True)
class WebDataset:
    """`form`, `place`, `columns`, `blocks` as of records.Records. `pictures` are the columns that together are one: some samples have a
    .jpg, the others a .png."""

    place: Place
    shards: Sequence[Shard]
    columns: Mapping[str, Kind]
    pictures: tuple[str, ...]
    needed: frozenset[str]  # columns that most samples have: one without is broken
    said: tuple[str, ...]
    form: str = "webdataset"

    @cached_property
    def blocks(self) -> Sequence[Block]:
        return tuple(Block(len(shard.names), (shard.object,)) for shard in self.shards)

    def names(self, block: int) -> Sequence[str]:
        shard = self.shards[block]
        return [f"{shard.object.name}/{shard.names[row]}" for row in range(len(shard.names))]

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        shard = self.shards[block]
        name, where, keys = shard.object.name, self.place.where(shard.object), [shard.names[row] for row in rows]
        values: list[dict[str, Value]]
        if all(column in shard.numbers for column in columns):
            values = [{column: int(shard.numbers[column][row]) for column in columns} for row in rows]
        else:
            with shelf.hold(self.place, [shard.object]) as paths, reading(self.place, shard.object, paths[0]) as read:
                values = [self._values(shard, read, row, f"{where}/{key}", columns) for row, key in zip(rows, keys, strict=True)]
        return [Record(f"{name}/{key}", f"{where}/{key}", each) for key, each in zip(keys, values, strict=True)]

    def column(self, shelf: Shelf, block: int, name: str) -> Sequence[Value]:
        rows = range(len(self.shards[block].names))
        return [record.values[name] for record in self.read(shelf, block, rows, [name])]

    def words(self) -> Iterator[str]:
        yield from self.said

    def _values(self, shard: Shard, read: Read, row: int, where: str, columns: Collection[str]) -> dict[str, Value]:
        values, decoded = dict[str, Value](), dict[str, Value]()
        for column in columns:
            whole = next((name for name, kind in self.columns.items() if kind == "record" and column.startswith(f"{name}.")), "")
            member = whole if whole and column not in shard.sizes else column
            if member not in decoded:
                decoded[member] = self._member(shard, read, row, where, member)
            value = decoded[member]
            values[column] = value.get(column.removeprefix(f"{whole}.")) if whole == member and isinstance(value, dict) else value
        return values

    def _member(self, shard: Shard, read: Read, row: int, where: str, column: str) -> Value:
        names = self.pictures if column in self.pictures else (column,)
        name = next((name for name in names if name in shard.sizes and shard.sizes[name][row] >= 0), None)
        if name is None:
            if column in self.needed:
                raise alone(self.place, shard, row, column)
            return None
        start, size = int(shard.starts[name][row]), int(shard.sizes[name][row])
        data, member = read(start, start + size), f"{where}.{name}"
        if len(data) != size:
            why = f"{size:,} bytes of it were listed, {len(data):,} are there"
            raise JobError("GTJ0113", "the shard is cut short", where=member, why=why, how="copy it again, or write it again")
        return _decoded(data, name, member)


def alone(place: Place, shard: Shard, row: int, column: str, why: str = "the others have one") -> JobError:
    """The error for a sample that lacks a column."""
    has = ", ".join(f".{name}" for name, sizes in shard.sizes.items() if sizes[row] >= 0)
    how = f"add {shard.names[row]}.{column} to the shard, or take the sample out"
    what = f"the sample {shard.names[row]} has no .{column} beside its {has}"
    return JobError("GTJ0113", what, where=place.where(shard.object), why=why, how=how)


def _decoded(data: bytes, column: str, where: str) -> Value:
    kind = kind_of_column(column)
    if kind == "text":
        return text_of(data, where)
    if kind == "integer":
        return number_of(data, where)
    if kind == "record":
        return json_of(data, where)
    if kind == "list":
        try:
            return np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise JobError(
                "GTJ0113", "the member is no array of NumPy", where=where, why=str(error), how="write it with numpy.save"
            ) from error
    return data
