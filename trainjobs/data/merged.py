"""Several sets of records as one: two splits, or files of several forms of text in one folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainjobs.api.errors import JobError
from trainjobs.api.problem import listed
from trainjobs.data.forms.records import Block, Kind, Record, Records, decoded, objects_of
from trainjobs.data.places.place import Object, Place, Shelf

HELD = "held-out:"  # before the names of a split that is held out: no two names are equal


@dataclass(frozen=True)
class Merged:
    """`parts` are the sets, `order` the blocks of them: (set, its block). They have the columns that all of them have."""

    parts: tuple[Records, ...]
    order: tuple[tuple[int, int], ...]
    columns: Mapping[str, Kind]
    apart: int | None = None  # the set whose names are told apart
    said: str = ""  # of all together; empty where each is told by itself

    @property
    def form(self) -> str:
        return self.parts[0].form

    @property
    def place(self) -> Place:
        return self.parts[0].place

    @property
    def blocks(self) -> Sequence[Block]:
        return [self.parts[part].blocks[block] for part, block in self.order]

    def names(self, block: int) -> Sequence[str]:
        part, own = self.order[block]
        names = self.parts[part].names(own)
        return [f"{HELD}{name}" for name in names] if part == self.apart else names

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        part, own = self.order[block]
        return self.parts[part].read(shelf, own, rows, columns)

    def objects_of(self, block: int, rows: Sequence[int], columns: Collection[str]) -> Sequence[Object] | None:
        part, own = self.order[block]
        return objects_of(self.parts[part], own, rows, columns)

    def decoded(self, block: int, columns: Collection[str]) -> bool:
        part, own = self.order[block]
        return decoded(self.parts[part], own, columns)

    def words(self) -> Iterator[str]:
        if self.said:
            yield self.said
        for number, part in enumerate(self.parts):
            first, *rest = part.words()
            if self.said:
                yield from rest
                continue
            yield f"held out: {first}" if number == self.apart else first
            yield from rest


def one_after_the_other(first: Records, second: Records) -> Merged:
    """What is trained on, and behind it the split that is held out. JobError GTJ0113 when they have no column in common."""
    parts = (first, second)
    order = [(part, block) for part, records in enumerate(parts) for block in range(len(records.blocks))]
    return Merged(parts, tuple(order), _common(parts), apart=1)


def by_name(parts: Sequence[Records]) -> Merged:
    """Sets whose blocks are one object each, in the order of the objects' names."""
    order = [(part, block) for part, records in enumerate(parts) for block in range(len(records.blocks))]
    order.sort(key=lambda at: parts[at[0]].blocks[at[1]].objects[0].name)
    forms = listed(sorted({part.form for part in parts}), "and")
    rows = sum(block.rows for part in parts for block in part.blocks)
    return Merged(tuple(parts), tuple(order), _common(parts), said=f"{forms}, {len(order):,} files, {rows:,} samples")


def _common(parts: Sequence[Records]) -> Mapping[str, Kind]:
    both = {name: kind for name, kind in parts[0].columns.items() if all(part.columns.get(name) == kind for part in parts[1:])}
    if not both:
        why = "; ".join(f"{part.place.uri} has {listed(part.columns, 'and')}" for part in parts)
        how = "name splits and sources of the same columns"
        raise JobError("GTJ0113", "two parts of the data have no column in common", where=parts[-1].place.uri, why=why, how=how)
    return both
