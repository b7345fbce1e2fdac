"""Pictures as files: a row is a file, `folder` its sub-folder, and what is said of it beside. Block: some hundred files."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainjobs.data.forms.beside import beside
from trainjobs.data.forms.footers import kind
from trainjobs.data.forms.ranges import there, whole
from trainjobs.data.forms.recognise import Found, columns_said, counted
from trainjobs.data.forms.records import Block, Kind, Record, Value
from trainjobs.data.forms.values import text_of
from trainjobs.data.places.place import Object, Place, Shelf

FILES = 256  # of a block


def open_images(found: Found) -> Images:
    """JobError GTJ0113 as of beside.beside, and where data.labels is folder and there is one folder only."""
    said = beside(found)
    kept = [number for number in range(len(found.objects)) if number not in said.without]
    objects = [found.objects[number] for number in kept]
    texts = [said.texts[number] for number in kept] if said.texts else []
    folders = Counter(posixpath.dirname(one.name) for one in objects)
    if not objects:
        raise found.error("there is no picture that anything is said of", why=", ".join(said.words), how="add the rows")
    if found.data.labels == "folder" and len(folders) < 2:
        why = f"all {counted(len(objects), 'picture')} lie in {next(iter(folders)) or 'the folder itself'}"
        raise found.error(
            "the folders make one class only", why=why, how="put each class into a folder of its own, or leave data.labels out"
        )
    pictures = tuple(dict.fromkeys(["image", *([said.column] if said.column else [])]))
    columns: dict[str, Kind] = {"image": "image", "folder": "text", **({"txt": "text"} if texts else {})}
    columns |= {name: kind(said.table.field(name), None) for name in said.table.column_names}
    columns |= dict.fromkeys(pictures, "image")
    more = [name for name in columns if name not in (*pictures, "folder")]
    counts = ["images", counted(len(objects), "sample"), counted(len(folders), "folder"), *([columns_said(more)] if more else [])]
    others = Counter(found.others)
    for name in said.used:
        others[posixpath.splitext(name)[1].lower()] -= 1
    left = tuple(replace(found, others=+others).left_out())
    table = said.table if not said.without else said.table.take(pa.array(kept, pa.int64()))
    tags = json.dumps([[one.name, one.tag] for one in found.listed.objects if one.name in said.used])
    return Images(
        found.place, objects, columns, table, texts, (", ".join(counts), *said.words, *left), tags, _above(folders), pictures=pictures
    )


def _above(folders: Collection[str]) -> str:
    """The folder that all folders lie in: two splits with the same classes in folders of theirs, train/cats and val/cats, agree."""
    return posixpath.commonpath(folders) if len(folders) > 1 else posixpath.dirname(next(iter(folders)))


@dataclass(frozen=True)
class Images:
    """`form`, `place`, `columns`, `blocks` as of records.Records. `table` has a row for each picture."""

    place: Place
    objects: Sequence[Object]
    columns: Mapping[str, Kind]
    table: Any = field(compare=False)  # pyarrow.Table
    texts: Sequence[Object | None]
    said: tuple[str, ...]
    beside: str  # names and tags of what `table` was made of
    above: str = ""  # the folder that all of them lie in, which says nothing of any
    form: str = "images"
    pictures: tuple[str, ...] = ("image",)  # all columns that are the picture: also the one that names it

    @cached_property
    def blocks(self) -> Sequence[Block]:
        blocks = []
        for start in range(0, len(self.objects), FILES):
            pictures = tuple(self.objects[start : start + FILES])
            texts = tuple(one for one in self.texts[start : start + FILES] if one is not None)
            blocks.append(Block(len(pictures), pictures + texts))
        return tuple(blocks)

    def names(self, block: int) -> Sequence[str]:
        return [one.name for one in self.objects[block * FILES : block * FILES + self.blocks[block].rows]]

    def read(self, shelf: Shelf, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        with there(shelf, self.place, self.objects_of(block, rows, columns)) as found:
            return [self._record(block * FILES + row, columns, found) for row in rows]

    def objects_of(self, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Object]:
        wanted, numbers = list[Object](), [block * FILES + row for row in rows]
        if any(name in columns for name in self.pictures):
            wanted += [self.objects[number] for number in numbers]
        if "txt" in columns:
            wanted += [text for number in numbers if (text := self.texts[number]) is not None]
        return wanted

    def column(self, shelf: Shelf, block: int, name: str) -> Sequence[Value]:
        return [record.values[name] for record in self.read(shelf, block, range(self.blocks[block].rows), [name])]

    def words(self) -> Iterator[str]:
        yield from self.said

    def _record(self, number: int, columns: Collection[str], found: Mapping[Object, Path | bytes]) -> Record:
        one = self.objects[number]
        return Record(one.name, self.place.where(one), {name: self._value(number, name, found) for name in columns})

    def _value(self, number: int, name: str, found: Mapping[Object, Path | bytes]) -> Value:
        one = self.objects[number]
        if name in self.pictures:
            return whole(self.place, one, found[one])
        if name == "folder":
            return posixpath.dirname(one.name)[len(self.above) :].lstrip("/")
        if name == "txt":
            text = self.texts[number]
            assert text is not None, "pictures without are left out"
            return text_of(whole(self.place, text, found[text]), self.place.where(text)).rstrip("\r\n")
        return self.table.column(name)[number].as_py()
