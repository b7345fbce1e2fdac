"""Which rows of a data set are trained on, and which are held out. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trainjobs.api.data import Data
from trainjobs.data.forms.records import Records
from trainjobs.data.holdout import is_held, position
from trainjobs.data.places.place import ALONE, Object, Ranks
from trainjobs.data.source import divide

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a data set, counted through its blocks: those of block b are numbers[starts[b] : starts[b + 1]], ascending. Four bytes a
    row."""

    records: Records
    starts: Numbers  # [blocks + 1]
    numbers: npt.NDArray[np.int32]

    @classmethod
    def of(cls, records: Records, masks: Sequence[Mask]) -> Rows:
        """Those that are true, block by block."""
        numbers = [np.flatnonzero(mask).astype(np.int32) for mask in masks]
        return cls(records, starts([*map(len, numbers)]), np.concatenate([np.empty(0, np.int32), *numbers]))

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def lengths(self) -> Numbers:
        """[blocks]"""
        return np.diff(self.starts)

    def block(self, block: int) -> npt.NDArray[np.int32]:
        return self.numbers[self.starts[block] : self.starts[block + 1]]

    def at(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """(blocks, rows in them) of these, counted through all."""
        return within(self.starts, numbers)[0], self.numbers[numbers].astype(np.int64)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Shards: blocks that lie in the same objects, one after the other, and are fetched together where they are not on this machine."""
        found: list[Unit] = []
        before: tuple[Object, ...] | None = None
        for block, rows in zip(self.records.blocks, self.lengths.tolist(), strict=True):
            if found and before == block.objects:
                found[-1] = replace(found[-1], rows=found[-1].rows + rows, blocks=found[-1].blocks + 1)
            else:
                found.append(Unit(rows, block.objects))
            before = block.objects
        return tuple(found)


@dataclass(frozen=True)
class Unit:
    rows: int
    objects: tuple[Object, ...]
    blocks: int = 1

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(one.size for one in self.objects)


def everything(records: Records) -> Rows:
    """What a split or a source of its own is made of."""
    return Rows.of(records, [np.ones(block.rows, np.bool_) for block in records.blocks])


def divided(records: Records, data: Data, noun: str, ranks: Ranks = ALONE) -> tuple[Rows, Rows]:
    """(rows that are trained on, rows held out), by name: at least one of each, so of a few samples of which none lies
    below the share the lowest is held out. The ranks look at their parts of the names each.

    JobError GTJ0113 when nothing would be left to train on.
    """
    if not data.holdout:
        return everything(records), Rows.of(records, [np.zeros(block.rows, np.bool_) for block in records.blocks])
    count = len(records.blocks)
    mine = {block: _held(records, block, data.holdout) for block in range(ranks.rank, count, ranks.size)}
    masks: dict[int, Mask] = {}
    for part in ranks.gather(mine):
        masks |= part
    held = sum(int(mask.sum()) for mask in masks.values())
    total = sum(len(mask) for mask in masks.values())
    if held in (0, total):  # few samples: the lowest is held out, or all but the highest are
        divide(total, data.holdout, data.uri, noun)
        places = [(position(name), block, row) for block in range(count) for row, name in enumerate(records.names(block))]
        _, block, row = max(places) if held else min(places, key=lambda place: place[0])
        masks[block][row] = not held
    aside = [masks[block] for block in range(count)]
    return Rows.of(records, [~mask for mask in aside]), Rows.of(records, aside)


def starts(lengths: Sequence[int] | Numbers) -> Numbers:
    """int64 [n + 1]: where each begins, and where the last ends."""
    return np.cumsum(np.concatenate([np.zeros(1, np.int64), np.asarray(lengths, np.int64)]))


def within(begins: Numbers, numbers: Numbers) -> tuple[Numbers, Numbers]:
    """(which one, how far in it) of numbers counted through all of them; `begins` is of `starts`."""
    which = np.searchsorted(begins, numbers, side="right") - 1
    return which, numbers - begins[which]


def _held(records: Records, block: int, holdout: float) -> Mask:
    return np.fromiter((is_held(name, holdout) for name in records.names(block)), np.bool_, records.blocks[block].rows)
