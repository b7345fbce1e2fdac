"""A data set, opened: its form recognised, its index made, and of its rows those that the manifest wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trainjobs.api.data import Data
from trainjobs.data.forms.chosen import choose
from trainjobs.data.forms.csvs import open_csv
from trainjobs.data.forms.imagefolder import open_images
from trainjobs.data.forms.index import Indexing, silent
from trainjobs.data.forms.jsonl import open_jsonl
from trainjobs.data.forms.parquet import open_parquet
from trainjobs.data.forms.recognise import Found, Wants, find
from trainjobs.data.forms.records import Records
from trainjobs.data.forms.shards import open_shards
from trainjobs.data.forms.texts import open_texts
from trainjobs.data.places.place import ALONE, Listed, Place, Ranks, Shelf


def open_records(
    place: Place,
    listed: Listed,
    data: Data,
    shelf: Shelf,
    cache: Path,
    ranks: Ranks = ALONE,
    *,
    say: Callable[[str], None] = silent,
    clock: Callable[[], float] = time.monotonic,
    wants: Wants = "",
) -> Records:
    """The data at a place. What is found out of it (offsets, counts, names, which rows are chosen) is kept in `cache/index/`, and made by
    all ranks together: each of them calls this with the same arguments. `wants`: as of recognise.

    JobError GTJ0102 for data.where, GTJ0113 for data that cannot be read, GTJ0114 for a cache that cannot be written; the place's own.
    """
    found = find(place, listed, data, shelf, wants)
    indexing = Indexing(cache, ranks, say, clock)
    return choose(_opened(found, indexing), data.where, data.limit, shelf, indexing)


def _opened(found: Found, indexing: Indexing) -> Records:
    match found.form:
        case "images":
            return open_images(found)
        case "webdataset":
            return open_shards(found, indexing)
        case "parquet":
            return open_parquet(found, indexing)
        case "jsonl":
            return open_jsonl(found, indexing)
        case "csv":
            return open_csv(found, indexing)
        case _:
            return open_texts(found)
