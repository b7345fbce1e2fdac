"""Parquet through pyarrow. Block: a row group.

Pictures are as Hugging Face writes them, a struct of `bytes` and `path`, and the names of classes stand in the schema's metadata under
`huggingface`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainjobs.api.errors import JobError
from trainjobs.data.forms.footers import Shard, broken, footer
from trainjobs.data.forms.index import Arrays, Indexing, key_of
from trainjobs.data.forms.ranges import Ranged, ended, reading
from trainjobs.data.forms.recent import RECENT, Recent
from trainjobs.data.forms.recognise import Found, columns_said, counted
from trainjobs.data.forms.records import Block, Kind, Record, Value
from trainjobs.data.places.place import Object, Place, Shelf

_VERSION = 1


def open_parquet(found: Found, indexing: Indexing) -> Parquet:
    """JobError GTJ0113 when a footer cannot be read, has more than WIDEST columns, or two shards have other columns."""
    place, objects = found.place, found.objects

    def make(number: int) -> Arrays:
        with reading(place, objects[number]) as read:
            return footer(place, objects[number], ended(read, objects[number].size))

    made = indexing.of([key_of(place, one, "parquet", _VERSION) for one in objects], make)
    shards = [Shard.of(one, arrays) for one, arrays in zip(objects, made, strict=True)]
    return put_together(found, shards)


def put_together(found: Found, shards: Sequence[Shard], samples: str = "") -> Parquet:
    first = shards[0]
    for shard in shards[1:]:
        if shard.kinds != first.kinds:
            raise _other(found.place, first, shard)
    rows = sum(int(shard.groups.sum()) for shard in shards)
    if not rows:
        raise found.error(
            "there is no row in the data", why=f"{counted(len(shards), 'file')} of Parquet without rows", how="put data there"
        )
    said = ", ".join(["parquet", counted(len(found.objects), "shard"), samples or counted(rows, "sample"), columns_said(list(first.kinds))])
    return Parquet(found.place, shards, first.kinds, (said, *found.left_out()))


def _other(place: Place, first: Shard, shard: Shard) -> JobError:
    lacks, more = [name for name in first.kinds if name not in shard.kinds], [name for name in shard.kinds if name not in first.kinds]
    parts = [f"it lacks {', '.join(lacks[:5])}"] if lacks else []
    parts += [f"it has {', '.join(more[:5])} besides"] if more else []
    parts += [
        f"its {name} is {shard.types[name]} and not {first.types[name]}"
        for name in first.kinds
        if name in shard.kinds and shard.kinds[name] != first.kinds[name]
    ][:5]
    why = f"{', '.join(parts) or 'they are in another order'}, compared with {first.object.name}"
    how = "write all shards with one schema, or name those of one schema with a glob"
    return JobError("GTJ0113", f"{shard.object.name} has other columns", where=place.where(shard.object), why=why, how=how)


@dataclass(frozen=True)
class Parquet:
    """`form`, `place`, `columns`, `blocks` as of records.Records."""

    place: Place
    shards: Sequence[Shard]
    columns: Mapping[str, Kind]
    said: tuple[str, ...]
    form: str = "parquet"
    recent: Recent = field(default=RECENT, compare=False)

    @cached_property
    def _groups(self) -> Sequence[tuple[int, int, int]]:
        """(shard, row group, first row) of each block."""
        return [
            (number, group, int(shard.groups[:group].sum()))
            for number, shard in enumerate(self.shards)
            for group in range(len(shard.groups))
        ]

    @cached_property
    def blocks(self) -> Sequence[Block]:
        return tuple(Block(int(self.shards[number].groups[group]), (self.shards[number].object,)) for number, group, _ in self._groups)

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        return self.shards[0].classes

    def names(self, block: int) -> Sequence[str]:
        number, _, first = self._groups[block]
        name = self.shards[number].object.name
        return [f"{name}/{row}" for row in range(first, first + self.blocks[block].rows)]

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        number, group, first = self._groups[block]
        found, names = self.shards[number].object, [name for name in self.columns if name in columns]

        def decoded() -> tuple[Mapping[str, Any], int]:
            with shelf.hold(self.place, [found]) as paths:
                return self._decoded(found, paths[0], group, names)

        return self._records(found, self.recent.get(self._key(block, columns), decoded), rows, first)

    def decoded(self, block: int, columns: Collection[str]) -> bool:
        return self._key(block, columns) in self.recent

    def column(self, shelf: Shelf, block: int, name: str) -> Sequence[Value]:
        """Of the file where it is here, else of the column's own ranges."""
        number, group, _ = self._groups[block]
        found = self.shards[number].object
        values, _ = self._decoded(found, None, group, [name])
        return list(values[name].to_pylist())

    def first(self, count: int) -> list[Record]:
        """The first rows, of as few bytes as pyarrow can do with."""
        found = self.shards[0].object
        where = self.place.where(found)
        try:
            with reading(self.place, found) as read, pq.ParquetFile(Ranged(read, found.size), buffer_size=1 << 16) as file:
                table = pa.Table.from_batches([next(file.iter_batches(batch_size=count, use_threads=False))])
        except StopIteration:
            return []
        except (pa.ArrowException, OSError) as error:
            raise broken(where, found.name, error) from error
        return self._records(found, self._plain(table), range(min(count, len(table))))

    def words(self) -> Iterator[str]:
        yield from self.said

    def _key(self, block: int, columns: Collection[str]) -> Hashable:
        number, group, _ = self._groups[block]
        found = self.shards[number].object
        return self.place.uri, found.name, found.tag, group, tuple(name for name in self.columns if name in columns)

    def _decoded(self, found: Object, path: Path | None, group: int, names: Sequence[str]) -> tuple[Mapping[str, Any], int]:
        try:
            with reading(self.place, found, path) as read, pq.ParquetFile(Ranged(read, found.size)) as file:
                table = file.read_row_group(group, columns=list(names), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise broken(f"{self.place.where(found)}, row group {group:,}", found.name, error) from error
        return self._plain(table), table.nbytes

    def _plain(self, table: Any) -> Mapping[str, Any]:
        """Its columns, of pictures the bytes alone: looked up once, for each row asks for its own."""
        found = {}
        for name in table.column_names:
            column = table.column(name)
            if self.columns[name] == "image":
                column = _pictures(column)
            found[name] = column.chunk(0) if column.num_chunks == 1 else column
        return found

    def _records(self, found: Object, values: Mapping[str, Any], rows: Iterable[int], first: int = 0) -> list[Record]:
        """These rows of a stretch that begins with row `first` of the file."""
        where = self.place.where(found)
        return [
            Record(
                f"{found.name}/{first + row}",
                f"{where}, row {first + row:,}",
                {name: column[row].as_py() for name, column in values.items()},
            )
            for row in rows
        ]


def _pictures(column: Any) -> Any:
    """What is in the files: of `datasets`' struct the bytes, of a column of bytes itself."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    return column.flatten()[column.type.get_field_index("bytes")] if pa.types.is_struct(column.type) else column
