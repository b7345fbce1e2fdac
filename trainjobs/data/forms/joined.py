"""JSON Lines and plain text side by side, which a language model has always read together: first the records, then the documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from trainjobs.data.forms.recognise import Found, Wants, form_of, suffix_of
from trainjobs.data.forms.records import Block, Kind, Record, Records
from trainjobs.data.forms.texts import open_texts
from trainjobs.data.places.place import Listed, Place, Shelf


def texts_beside(found: Found, wants: Wants) -> tuple[Found, Found | None]:
    """(what was found, without the text beside it; that text, or None where it is left out): it counts where text is wanted, the form was
    recognised and not named, and the form is JSON Lines."""
    if found.form != "jsonl" or wants != "text" or found.data.format != "auto":
        return found, None
    objects = tuple(one for one in found.listed.objects if one.size and form_of(one.name) == "text")
    if not objects:
        return found, None
    others = found.others - Counter(suffix_of(one.name) for one in objects)
    return replace(found, others=others), Found("text", found.place, Listed(()), objects, Counter(), found.data, found.shelf)


def join(records: Records, beside: Found | None) -> Records:
    """As they are where there is nothing beside them, or where they hold no column of that name."""
    if beside is None:
        return records
    texts = open_texts(beside)
    return Joined((records, texts)) if records.columns.get(texts.text) == "text" else records


@dataclass(frozen=True)
class Joined:
    """The blocks of several Records, one after the other, with the columns that all of them have."""

    parts: tuple[Records, ...]

    @property
    def form(self) -> str:
        return self.parts[0].form

    @property
    def place(self) -> Place:
        return self.parts[0].place

    @property
    def columns(self) -> Mapping[str, Kind]:
        first, *others = self.parts
        return {name: kind for name, kind in first.columns.items() if all(other.columns.get(name) == kind for other in others)}

    @cached_property
    def blocks(self) -> Sequence[Block]:
        return tuple(block for part in self.parts for block in part.blocks)

    def names(self, block: int) -> Sequence[str]:
        part, number = self._whose(block)
        return part.names(number)

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        part, number = self._whose(block)
        return part.read(shelf, number, rows, columns)

    def words(self) -> Iterator[str]:
        first, *more = (list(part.words()) for part in self.parts)
        yield ", and ".join([first[0], *(words[0] for words in more)])
        yield from (word for words in (first, *more) for word in words[1:])

    def _whose(self, block: int) -> tuple[Records, int]:
        for part in self.parts:
            if block < len(part.blocks):
                return part, block
            block -= len(part.blocks)
        raise IndexError(block)
