"""Two sets of records as one: what is trained on, and behind it the split that is held out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from trainjobs.api.errors import JobError
from trainjobs.api.problem import listed
from trainjobs.data.forms.records import Block, Kind, Record, Records
from trainjobs.data.places.place import Place, Shelf


@dataclass(frozen=True)
class Joined:
    """Of the same form, and of both only the columns that both have. The names of the second begin with "held-out:": no two are equal."""

    first: Records
    second: Records

    @property
    def form(self) -> str:
        return self.first.form

    @property
    def place(self) -> Place:
        return self.first.place

    @cached_property
    def columns(self) -> Mapping[str, Kind]:
        both = {name: kind for name, kind in self.first.columns.items() if self.second.columns.get(name) == kind}
        if not both:
            why = f"one has {listed(self.first.columns)}, the other {listed(self.second.columns)}"
            how = "name a split, or a source, of the same columns in data.split.validation"
            raise JobError("GTJ0113", "the split that is held out has other columns", where=self.second.place.uri, why=why, how=how)
        return both

    @cached_property
    def blocks(self) -> Sequence[Block]:
        return [*self.first.blocks, *self.second.blocks]

    def names(self, block: int) -> Sequence[str]:
        records, number = self._of(block)
        names = records.names(number)
        return names if records is self.first else [f"held-out:{name}" for name in names]

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        records, number = self._of(block)
        return records.read(shelf, number, rows, columns)

    def words(self) -> Iterator[str]:
        yield from self.first.words()
        yield "held out: " + next(iter(self.second.words()), "")

    def _of(self, block: int) -> tuple[Records, int]:
        ours = len(self.first.blocks)
        return (self.first, block) if block < ours else (self.second, block - ours)
