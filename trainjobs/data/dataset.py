"""A source, opened: its rows, what their columns are for, and which are trained on and which held out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainjobs.api.data import Data, size_in_bytes
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.problem import listed
from trainjobs.data.bad import NAME, BadSamples
from trainjobs.data.files import fingerprinted
from trainjobs.data.formats import COLUMN, format_of
from trainjobs.data.forms.chosen import column_of
from trainjobs.data.forms.index import silent
from trainjobs.data.forms.labels import classes_of
from trainjobs.data.forms.open import open_records
from trainjobs.data.forms.recognise import form_of
from trainjobs.data.forms.records import Record, Records, Value
from trainjobs.data.forms.roles import Classes, roles
from trainjobs.data.found import Found, wants
from trainjobs.data.holdout import Rule
from trainjobs.data.merged import by_name, one_after_the_other
from trainjobs.data.places.place import ALONE, Listed, Object, Place, Ranks, Shelf
from trainjobs.data.places.shelf import DiskShelf
from trainjobs.data.rows import Mask, Rows, divided
from trainjobs.data.source import divide
from trainjobs.data.wanted import carried, refuse_missing

Kind = Literal["image", "text", "exchange"]
LINES = ("jsonl", "text")  # forms of text that one folder may hold both of
_AT_ONCE = 64 << 20  # bytes of text that are read together


@dataclass(frozen=True)
class Reading:
    """How a process reads. `cache` is a folder for what is fetched and derived, which may be shared and may not exist yet; `kept` is what
    the checkpoint of a run that goes on says of the order of each source; `aside` where samples that cannot be read are named."""

    cache: Path
    rule: Rule = "name"
    kept: tuple[Mapping[str, Any], ...] = ()
    ranks: Ranks = ALONE
    pin: bool = False
    aside: Path | None = None
    unit: int = 1  # samples that pass together
    say: Callable[[str], None] = silent

    def limit(self, data: Data) -> int:
        """Bytes of disk for everything; half of what is free unless the manifest says how much."""
        if data.cache is not None:
            return size_in_bytes(data.cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.cache).free // 2

    def derived(self, data: Data, found: Sequence[Found]) -> int:
        """Bytes of disk for what is derived of each source; half of `limit` where objects are fetched, whose the other half is."""
        fetched = any(one.path is None for source in found for one in source.train.objects[:1])
        return self.limit(data) // len(data.parts) // (2 if fetched else 1)

    def shelf(self, data: Data, *, derived: bool) -> Shelf:
        """For objects; half of the disk is left to what is `derived` of them, where that is kept."""
        limit = size_in_bytes(data.cache) if data.cache is not None else None
        return DiskShelf(self.cache / "fetched", limit // 2 if limit is not None and derived else limit)


@dataclass(frozen=True)
class Dataset:
    """Blocks of `records` from `apart` on are of a split that is held out. `roles` are the columns that the job uses."""

    found: Found
    data: Data
    records: Records
    apart: int | None
    roles: Mapping[str, str]
    recognised: Mapping[str, str]  # columns that stand for something, whether the job uses them or not
    kind: Kind
    bad: BadSamples | None = None  # where samples that cannot be read are left out

    @property
    def local(self) -> bool:
        return all(one.path is not None for one in self.found.train.objects[:1])

    @cached_property
    def objects(self) -> tuple[Object, ...]:
        """Every object that is read, once."""
        return tuple(dict.fromkeys(one for block in self.records.blocks for one in block.objects))

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(one.size for one in self.objects)

    @property
    def key(self) -> str:
        """Changes with the objects and with what is read of them."""
        objects = [[one.name, one.size, one.tag] for block in self.records.blocks for one in block.objects]
        data, skipped = self.data, {} if self.bad is None else {"onBadSample": "skip"}
        asked = {"roles": dict(self.roles), "form": self.records.form, "where": data.where, "limit": data.limit}
        return fingerprinted([self.apart, objects], **asked, **skipped)

    def sides(self, reading: Reading) -> tuple[Rows, Rows]:
        """(rows that are trained on, rows held out). JobError GTJ0113 when one of the first is missing."""
        blocks = self.records.blocks
        if self.apart is not None:
            aside = [np.full(block.rows, number >= self.apart, np.bool_) for number, block in enumerate(blocks)]
        elif reading.rule == "place" and self.data.holdout:
            aside = self._by_place()
        else:
            return divided(self.records, self.data, NOUNS[self.kind], reading.ranks)
        return Rows.of(self.records, [~mask for mask in aside]), Rows.of(self.records, aside)

    def classes(self, shelf: Shelf, reading: Reading) -> Classes | None:
        """Of the column of labels, if there is one."""
        column = self.roles.get("label")
        if column is None:
            return None
        found = classes_of(self.records, column, shelf, reading.cache, reading.ranks, say=reading.say, lenient=self.bad is not None)
        if len(found.names) < 2:
            why = f"every sample that there is has the class {found.names[0]}"
            how = "take data.columns.label and data.labels out, or add the other classes"
            raise JobError("GTJ0113", "there is one class only", where=self.found.uri, why=why, how=how)
        return found

    def column(self, role: str, shelf: Shelf) -> list[Value]:
        """All values of a role, in the order of rows."""
        name = self.roles[role]
        return [value for block in range(len(self.records.blocks)) for value in column_of(self.records, shelf, block, name)]

    def documents(
        self, shelf: Shelf, blocks: range | None = None, rows: range | None = None
    ) -> Iterator[tuple[str, str, Mapping[str, Value], bool]]:
        """Each row in order: its name, where it is, its roles' values, and whether its split is held out. Never all of them in memory.
        `blocks` are those that are read, of all; `rows` those of each. Those that are `bad` are left out, and JobError GTJ0113 raised where
        there are too many."""
        columns = list(dict.fromkeys(self.roles.values()))
        for number in range(len(self.records.blocks)) if blocks is None else blocks:
            block = self.records.blocks[number]
            step = max(1, block.rows * _AT_ONCE // max(1, sum(_unpacked(one.name, one.size) for one in block.objects)))
            every = range(block.rows) if rows is None else rows
            for start in range(0, len(every), step):
                for row in self._read(shelf, number, every[start : start + step], columns):
                    values = {role: row.values[name] for role, name in self.roles.items()}
                    yield row.name, row.where, values, self.apart is not None and number >= self.apart

    def _read(self, shelf: Shelf, block: int, rows: range, columns: Sequence[str]) -> Iterator[Record]:
        try:
            yield from self.records.read(shelf, block, rows, columns)
        except JobError as error:
            if self.bad is None or error.code != "GTJ0113":
                raise
            for row in rows:  # which of them it is, each by itself says
                try:
                    yield from self.records.read(shelf, block, [row], columns)
                except JobError as alone:
                    self.bad.left_out((block, row), alone)
        if self.bad is not None:
            self.bad.saw(len(rows))

    def _by_place(self) -> list[Mask]:
        """As runs held out that began before there was a choice."""
        from trainjobs.data.sampler import split

        counts = [block.rows for block in self.records.blocks]
        mask = np.zeros(sum(counts), np.bool_)
        mask[split(sum(counts), divide(sum(counts), self.data.holdout, self.data.uri, NOUNS[self.kind])[1])[1].numpy()] = True
        return list(np.split(mask, np.cumsum(counts)[:-1]))


NOUNS: Mapping[Kind, str] = {"image": "image", "text": "document", "exchange": "record"}


def open_dataset(spec: Spec, found: Found, reading: Reading, shelf: Shelf) -> Dataset:
    """JobErrors as of open_records and roles."""
    data = spec.data

    def opened(place: Place, listed: Listed) -> Records:
        asked = wants(spec, listed)
        forms = _lines(listed, data, place) if asked == "text" and found.form == "jsonl" else ()
        if len(forms) > 1:
            return by_name([open_records(place, one, told, shelf, reading.cache, reading.ranks, say=reading.say) for one, told in forms])
        return open_records(place, listed, data, shelf, reading.cache, reading.ranks, say=reading.say, wants=asked)

    records, apart = opened(found.place(), found.train), None
    if found.held is not None:
        apart = len(records.blocks)
        records = one_after_the_other(records, opened(found.place_held(), found.held))
    recognised = roles(records.columns, data.columns, data.text.field, spec.learner)
    if data.labels == "folder":
        recognised |= {"label": "folder"}
    kind, used = uses(spec, recognised)
    if spec.language and spec.language.rewarded:  # what reward functions are given
        used |= {f"{COLUMN}{name}": name for name in records.columns if name not in used.values()}
    bad = None
    if data.on_bad_sample == "skip":
        bad = BadSamples((reading.aside or reading.cache) / NAME, sum(block.rows for block in records.blocks), found.uri)
    return Dataset(found, data, records, apart, used, recognised, kind, bad)


def uses(spec: Spec, found: Mapping[str, str]) -> tuple[Kind, dict[str, str]]:
    """What the data is to this job, and the roles that it uses. What a picture is drawn for is carried where the manifest names it or the
    model is conditioned on it, and where the objective is the user's own; a conversation or a prompt where there is no plain text, or the
    manifest names it."""
    asked = {role for role in found if getattr(spec.data.columns, role) is not None}
    asked |= {"label"} if spec.data.labels == "folder" else set()
    if "image" in found and not spec.reads_text:
        refuse_missing(spec, {*found, *asked}, listed([f"{column} ({role})" for role, column in found.items()], "and"))
        wanted = {"image", *asked, *carried(spec)}
        return "image", {role: found[role] for role in ("image", "caption", "label") if role in found and role in wanted}
    if spec.language:
        form, used = format_of(spec.language, found, asked)
        return ("text" if form == "text" else "exchange"), used
    exchanged = {role: column for role, column in found.items() if role not in ("text", "label", "image", "caption")}
    if spec.custom and exchanged and ("text" not in found or asked & exchanged.keys()):
        return "exchange", exchanged
    if "text" not in found:
        why = f"of its columns {listed(f'{column} ({role})' for role, column in found.items())} are known" if found else ""
        how = "name what is learned from in data.columns; `gtj data` lists the columns"
        raise JobError(
            "GTJ0108", "the data has neither pictures nor text that are known by their names", where="data.source", why=why, how=how
        )
    return "text", {"text": found["text"]}


def encoded(record: Record, column: str) -> bytes:
    """A row's picture, as it is in the data; JobError GTJ0113 where there is none."""
    data = record.values.get(column)
    if isinstance(data, bytes):
        return data
    why = f"column {column} holds {'nothing' if data is None else type(data).__name__}"
    raise JobError("GTJ0113", f"{record.name} has no picture", where=record.where, why=why, how="replace or remove the sample")


def _lines(listed: Listed, data: Data, place: Place) -> Sequence[tuple[Listed, Data]]:
    """JSON Lines and plain text in one folder, each object by itself, in the order of names; none where it is not both. Pages that stand
    beside a dataset of the hub are about it, and no data."""
    if data.format != "auto" or place.uri.startswith("hf:"):
        return ()
    objects = [one for one in listed.objects if one.size and form_of(one.name) in LINES]
    if all(form_of(one.name) == "jsonl" for one in objects):
        return ()
    told = {form: data.model_copy(update={"format": form, "limit": None}) for form in LINES}
    left = replace(listed, objects=tuple(one for one in listed.objects if one not in objects))
    first = replace(left, objects=(objects[0], *left.objects))  # what is left out is told once
    return [(first if one is objects[0] else Listed((one,)), told[str(form_of(one.name))]) for one in objects]


def _unpacked(name: str, size: int) -> int:
    return size * (5 if name.lower().endswith((".gz", ".zst")) else 1)
