"""Pictures from wherever they lie: from what was found of a source to a Source that the trainer asks.

What is small is decoded once, into a table that is mapped into memory; of everything else batches are read and decoded as they come.
Which of the two changes no sample: order, held-out rows and pixels are the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainjobs.api.data import Data, size_in_bytes
from trainjobs.api.job import Spec
from trainjobs.data.forms.open import open_records
from trainjobs.data.forms.records import Records
from trainjobs.data.forms.roles import roles
from trainjobs.data.found import Found
from trainjobs.data.holdout import Rule
from trainjobs.data.merged import one_after_the_other
from trainjobs.data.order import Order, chosen
from trainjobs.data.places.place import ALONE, Ranks
from trainjobs.data.places.shelf import DiskShelf
from trainjobs.data.rows import Mask, Rows, divided

AT_ONCE = 1 << 30  # bytes of encoded pictures that are decoded before the first step, instead of beside it


@dataclass(frozen=True)
class Reading:
    """How a process reads: `cache` is a folder for what is fetched and derived, which may be shared and may not exist yet; `kept` what the
    checkpoint says of the order of each source, for a run that goes on."""

    cache: Path
    rule: Rule = "name"
    kept: tuple[Mapping[str, Any], ...] = ()
    ranks: Ranks = ALONE
    pin: bool = False
    say: Callable[[str], None] = lambda words: None
    shelves: dict[str, DiskShelf] = field(default_factory=dict)  # one a process

    def limit(self, data: Data) -> int | None:
        return size_in_bytes(data.cache) if data.cache else None

    def shelf(self, data: Data) -> DiskShelf:
        if "one" not in self.shelves:
            self.shelves["one"] = DiskShelf(self.cache / "fetched", self.limit(data))
        return self.shelves["one"]


@dataclass(frozen=True)
class Dataset:
    """A source, opened: its records, in which blocks from `apart` on are of a split that is held out, and which column is what."""

    found: Found
    records: Records
    apart: int | None
    roles: Mapping[str, str]

    @property
    def local(self) -> bool:
        return all(one.path is not None for block in self.records.blocks[:1] for one in block.objects)

    @property
    def size(self) -> int:
        """Bytes of all its objects."""
        return sum(one.size for one in dict.fromkeys(one for block in self.records.blocks for one in block.objects))


def open_dataset(spec: Spec, found: Found, reading: Reading, kind: str) -> Dataset:
    data, shelf = spec.data, reading.shelf(spec.data)
    wants: Any = kind if kind in ("image", "text") else ""

    def opened(place: Any, listed: Any) -> Records:
        return open_records(place, listed, data, shelf, reading.cache, reading.ranks, say=reading.say, wants=wants)

    records, apart = opened(found.place(), found.train), None
    if found.held is not None:
        apart = len(records.blocks)
        records = one_after_the_other(records, opened(found.place_held(), found.held))
    return Dataset(found, records, apart, roles(records.columns, data, spec.family))


def sides(dataset: Dataset, data: Data, reading: Reading) -> tuple[Rows, Rows]:
    """(rows that are trained on, rows held out)."""
    blocks, apart = dataset.records.blocks, dataset.apart
    if apart is not None:
        aside = [np.full(block.rows, number >= apart, np.bool_) for number, block in enumerate(blocks)]
    elif reading.rule == "place" and data.holdout:
        aside = _by_place(dataset.records, data)
    else:
        return divided(dataset.records, data, "image", reading.ranks)
    return Rows.of(dataset.records, [~mask for mask in aside]), Rows.of(dataset.records, aside)


def _by_place(records: Records, data: Data) -> list[Mask]:
    """As runs held out that began before there was a choice."""
    from trainjobs.data.sampler import split
    from trainjobs.data.source import divide

    counts = [block.rows for block in records.blocks]
    mask = np.zeros(sum(counts), np.bool_)
    mask[split(sum(counts), divide(sum(counts), data.holdout, data.uri, "image")[1])[1].numpy()] = True
    return list(np.split(mask, np.cumsum(counts)[:-1]))


def order_of(dataset: Dataset, train: Rows, reading: Reading, number: int) -> Order:
    """Of source `number`: as it was, for a run that goes on."""
    if number < len(reading.kept):
        return Order.from_dict(reading.kept[number])
    units = train.units
    cache = None if dataset.local else reading.shelf_limit
    return chosen([unit.rows for unit in units], [unit.size for unit in units], cache, dataset.found.uri)


def room(folder: Path) -> int:
    """Half of what is free."""
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free // 2
