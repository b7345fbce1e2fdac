"""WebDataset's shards, opened: every shard is indexed, and what they say of their columns is put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from trainjobs.api.errors import JobError
from trainjobs.data.forms.index import Arrays, Indexing, key_of
from trainjobs.data.forms.ranges import Read, reading, skipping
from trainjobs.data.forms.recognise import Found, columns_said, counted
from trainjobs.data.forms.records import Kind
from trainjobs.data.forms.tars import members
from trainjobs.data.forms.values import together
from trainjobs.data.forms.webdataset import PICTURES, Shard, WebDataset, alone, arrays_of, kind_of_column
from trainjobs.data.places.place import Object, Place, Shelf

_VERSION = 1
SMALL = 16 * 1024  # bytes of a member: where they are smaller in the mean, skipping them saves nothing
LOOKED = 8  # members that tell
WHOLE, BEGIN = 1 << 20, 256 * 1024  # bytes of a shard


def open_shards(found: Found, indexing: Indexing) -> WebDataset:
    """JobError GTJ0113 when a shard is broken, or there is no sample in any, or where data.onBadSample is fail one lacks a column."""
    place, objects = found.place, found.objects
    keys = [key_of(place, one, "webdataset", _VERSION) for one in objects]
    made = indexing.of(keys, lambda number: shard_arrays(place, objects[number], found.shelf))
    return put_together(found, [Shard.of(one, arrays) for one, arrays in zip(objects, made, strict=True)])


def put_together(found: Found, shards: Sequence[Shard], samples: str = "") -> WebDataset:
    """A data set of these shards. `samples` words their number, where these are not all."""
    rows = sum(len(shard.names) for shard in shards)
    if not rows:
        stray = sum(shard.left.total() for shard in shards)
        why = f"{counted(stray, 'member')} without a key (name up to the first dot)" if stray else "the archives hold no file"
        raise found.error("there is no sample in the shards", why=why, how="write members as 0001.jpg, 0001.cls")
    counts = Counter[str]()
    for shard in shards:
        counts.update({column: shard.count(column) for column in shard.sizes})
    pictures = _pictures(shards, counts)
    merged = [column for column in counts if column not in pictures[1:]]
    have = {column: sum(counts[name] for name in pictures) if column in pictures else counts[column] for column in merged}
    needed = frozenset(column for column in merged if 2 * have[column] > rows)
    if found.data.on_bad_sample == "fail":
        if broken := next((shard.broken for shard in shards if shard.broken), None):
            raise JobError.from_dict(dict(broken))
        for column in merged:
            if column in needed and have[column] < rows:
                raise _lacking(found.place, shards, column, pictures, rows - have[column], rows)
    kinds: dict[str, Kind] = {}
    for column in merged:
        kinds[column] = kind_of_column(column)
        if kinds[column] == "record":
            kinds |= _fields(shards, column)
    named = ["/".join(pictures) if column in pictures else column for column in merged if have[column] == rows or column in needed]
    rare = [f"{column} in {have[column]:,} of them" for column in merged if column not in needed]
    said = ["webdataset", counted(len(found.objects), "shard"), samples or counted(rows, "sample"), columns_said(named), *rare]
    members_left = sum((shard.left for shard in shards), Counter[str]()).total()
    left = [f"{counted(members_left, 'member')} without a key left out"] if members_left else []
    return WebDataset(found.place, shards, kinds, pictures, needed, (", ".join(said), *left, *found.left_out()))


def _pictures(shards: Sequence[Shard], counts: Counter[str]) -> tuple[str, ...]:
    """The columns of pictures of which every sample has exactly one, the most frequent first; () where there are not several."""
    names = sorted((name for name in PICTURES if counts[name]), key=lambda name: -counts[name])
    if len(names) < 2:
        return ()
    for shard in shards:
        there = sum((shard.sizes[name] >= 0 for name in names if name in shard.sizes), np.zeros(len(shard.names), np.int64))
        if (there != 1).any():
            return ()
    return tuple(names)


def _fields(shards: Sequence[Shard], column: str) -> dict[str, Kind]:
    """Of the objects in a column, by the first of each shard; fields of several kinds are left out."""
    fields: dict[str, Kind | None] = {}
    for shard in shards:
        for name, kind in shard.fields.items():
            if name.startswith(f"{column}."):
                fields[name] = together(fields.get(name, kind), kind)
    return {name: kind for name, kind in fields.items() if kind is not None}


def _lacking(place: Place, shards: Sequence[Shard], column: str, pictures: Sequence[str], count: int, rows: int) -> JobError:
    names = pictures if column in pictures else (column,)
    for shard in shards:
        there = [shard.sizes[name] >= 0 for name in names if name in shard.sizes]
        lacks = ~np.any(there, axis=0) if there else np.ones(len(shard.names), np.bool_)
        if lacks.any():
            others = f"{rows - count:,} of {counted(rows, 'sample')} have one, {count:,} {'have' if count > 1 else 'has'} none"
            return alone(place, shard, int(lacks.argmax()), column, others)
    raise AssertionError("it was counted")


def shard_arrays(place: Place, found: Object, shelf: Shelf) -> Arrays:
    """A shard of small members is fetched, which the first epoch would do as well; of one with large members only headers are read."""
    where = place.where(found)
    if found.path is None:
        with reading(place, found) as read:
            once = lru_cache(maxsize=4 * LOOKED)(_begun(read, found.size))  # who goes through it again asks for the same ranges
            if _large(once, found.size, where):
                return _walked(once, found.size, where)
    with shelf.hold(place, [found]) as paths, reading(place, found, paths[0]) as read:
        return _walked(read, found.size, where)


def _walked(read: Read, size: int, where: str) -> Arrays:
    sparing = skipping(read, size)
    return arrays_of(members(sparing, size, where), sparing, where)


def _large(read: Read, size: int, where: str) -> bool:
    sizes = []
    for member in members(skipping(read, size), size, where):
        sizes.append(member.size)
        if len(sizes) == LOOKED:
            break
    return bool(sizes) and sum(sizes) / len(sizes) >= SMALL


def _begun(read: Read, size: int) -> Read:
    """Of a large shard a 64th is read at once: a request for each member takes longer than all of them."""
    begin = read(0, min(size >> 6, BEGIN)) if size >= WHOLE else b""
    return lambda start, stop: begin[start:stop] if stop <= len(begin) else read(start, stop)
