"""What data is, in seconds: by its first shard and three others, of which only the beginnings are looked at.

A folder's pictures and texts are counted; shards, row groups and lines are counted where they are few, else told from the mean of those
that were looked at, in proportion to their bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.data.forms import csvs, footers, jsonl, parquet, shards
from trainjobs.data.forms.imagefolder import open_images
from trainjobs.data.forms.index import Arrays
from trainjobs.data.forms.lined import File
from trainjobs.data.forms.ranges import reading, skipping
from trainjobs.data.forms.recognise import Found, Wants, counted, find
from trainjobs.data.forms.records import Kind, Record, Records
from trainjobs.data.forms.streams import packing, unpacked
from trainjobs.data.forms.tars import BLOCK, members
from trainjobs.data.forms.texts import open_texts
from trainjobs.data.forms.webdataset import Shard, arrays_of
from trainjobs.data.forms.where import condition
from trainjobs.data.places.place import Listed, Object, Place, Shelf
from trainjobs.data.places.straight import Straight

OTHERS = 3  # shards besides the first
SAMPLES = 64  # of a shard that is not on this machine
BEGINNING = 1 << 20  # bytes of a file of lines
_STEP = 4096  # bytes
HEAD = 4  # records whose values are given
LARGE = 1 << 24  # bytes of a text that is not read for that


@dataclass(frozen=True)
class Glance:
    """`samples` is a count where `exact`, else an estimate, before data.where and data.limit. `head` are the first records, whole."""

    form: str
    columns: Mapping[str, Kind]
    shards: int  # objects of the form
    bytes: int
    samples: int
    exact: bool
    head: tuple[Record, ...]
    said: tuple[str, ...]

    def words(self) -> Iterator[str]:
        """ "webdataset, 128 shards, about 1,281,000 samples, jpg + cls", then what was left out."""
        yield from self.said


def glance(place: Place, listed: Listed, data: Data, shelf: Shelf, *, wants: Wants = "", seed: int = 0) -> Glance:
    """JobErrors as of open.open_records, for what the shards show that are looked at."""
    straight = Straight()
    found = find(place, listed, data, straight, wants)
    looked = _looked(found.objects, seed)
    records, rows, exact = _records(found, looked)
    if data.where is not None:
        condition(data.where, records.columns)
    size = sum(one.size for one in found.objects)
    try:
        head = tuple(_head(records, straight))
    except JobError:
        if data.on_bad_sample == "fail":
            raise
        head = ()
    return Glance(found.form, records.columns, len(found.objects), size, rows, exact, head, tuple(records.words()))


def _looked(objects: Sequence[Object], seed: int) -> list[Object]:
    others = random.Random(seed).sample(range(1, len(objects)), min(OTHERS, len(objects) - 1))
    return [objects[number] for number in [0, *sorted(others)]]


def _records(found: Found, looked: Sequence[Object]) -> tuple[Records, int, bool]:
    place = found.place
    if found.form in ("images", "text"):
        records: Records = open_images(found) if found.form == "images" else open_texts(found)
        return records, sum(block.rows for block in records.blocks), True
    if found.form == "webdataset":
        parts = [_shard(place, one) for one in looked]
        rows, exact = _estimate(found, looked, parts)
        made = [Shard.of(one, arrays) for one, (arrays, _) in zip(looked, parts, strict=True)]
        return shards.put_together(found, made, _said(rows, exact)), rows, exact
    if found.form == "parquet":
        parts = []
        for one in looked:
            with reading(place, one) as read:
                parts.append((footers.footer(place, one, read), one.size))
        rows, exact = _estimate(found, looked, parts)
        groups = [footers.Shard.of(one, arrays) for one, (arrays, _) in zip(looked, parts, strict=True)]
        return parquet.put_together(found, groups, _said(rows, exact)), rows, exact
    lenient = found.data.on_bad_sample == "skip"

    def scan(read: Callable[[int], bytes], name: str, where: str, whole: bool) -> Arrays:
        if found.form == "csv":
            return csvs.arrays_of(read, name, where, whole=whole, lenient=lenient)
        return jsonl.arrays_of(read, name, where, lenient=lenient)

    parts = [_lines(place, one, scan) for one in looked]
    rows, exact = _estimate(found, looked, parts)
    files = [File.of(one, arrays) for one, (arrays, _) in zip(looked, parts, strict=True)]
    together = csvs.put_together if found.form == "csv" else jsonl.put_together
    return together(found, files, _said(rows, exact)), rows, exact


def _shard(place: Place, one: Object) -> tuple[Arrays, int]:
    """(index, how many bytes it is the index of). All of a shard that is here, or that does not end as an archive does."""
    where = place.where(one)
    with reading(place, one) as read:
        sparing = skipping(read, one.size)
        whole = one.path is not None or read(one.size - BLOCK, one.size).strip(b"\0") != b""
        arrays = arrays_of(members(sparing, one.size, where), sparing, where, None if whole else SAMPLES)
    if int(arrays["rows"]) < SAMPLES or whole:
        return arrays, one.size
    ends = [
        int((arrays[f"start{number}"] + arrays[f"size{number}"]).max())
        for number in range(sum(name.startswith("start") for name in arrays))
    ]
    return arrays, max(ends)


def _lines(place: Place, one: Object, scan: Callable[..., Arrays]) -> tuple[Arrays, int]:
    """Of the beginning of a file, up to the last whole line in it."""
    where = place.where(one)
    with unpacked(place, one, None) as read:
        text, part = b"", b" "
        while part and (len(text) < BEGINNING or b"\n" not in text):
            part = read(BEGINNING)
            text += part
        taken, part = read.taken, part and read(_STEP)
        while part and packing(one.name) and read.taken == taken:  # what it was packed into was taken in pieces
            text += part
            part = read(_STEP)
        whole = not part
    if not whole:
        text = text[: text.rfind(b"\n") + 1]
    left = [text]
    return scan(lambda _: left.pop() if left else b"", one.name, where, whole=whole), one.size if whole else taken


def _estimate(found: Found, looked: Sequence[Object], parts: Sequence[tuple[Arrays, int]]) -> tuple[int, bool]:
    if len(looked) == len(found.objects) and all(size == one.size for one, (_, size) in zip(looked, parts, strict=True)):
        return sum(int(arrays["rows"]) for arrays, _ in parts), True
    each = [int(arrays["rows"]) / size for arrays, size in parts if size]
    return round(float(np.mean(each)) * sum(one.size for one in found.objects)), False


def _said(rows: int, exact: bool) -> str:
    if exact:
        return ""
    digits = max(0, len(str(rows)) - 4)
    return f"about {counted(round(rows, -digits), 'sample')}"


def _head(records: Records, shelf: Shelf) -> list[Record]:
    if isinstance(records, parquet.Parquet):
        return records.first(HEAD)
    block = next((number for number, block in enumerate(records.blocks) if block.rows), None)
    if block is None or (records.form == "text" and max(one.size for one in records.blocks[block].objects[:HEAD]) > LARGE):
        return []
    return records.read(shelf, block, range(min(HEAD, records.blocks[block].rows)), list(records.columns))
