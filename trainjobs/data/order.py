"""The order of rows that lie in blocks (shards, row groups), at any size: a pure function of the seed and of the position.

`whole`: one permutation of all rows, as trainjobs.data.sampler has it. `blocks`: a permutation of the shards, of which so many at a
time are mixed block by block, and of the blocks so many, a window, row by row. So only a few shards have to be on the machine, and the next
ones can be fetched meanwhile; and only the window's blocks have to be in memory, where they are decoded whole.
Both are computed from the position alone: nothing is saved to resume but which of the two it is, and it does not matter how a batch is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.data.files import megabytes
from trainjobs.data.rows import Numbers, Rows, starts, within
from trainjobs.data.sampler import order, permutation

MOST = 2**25  # rows of one permutation: 128 MiB
PART = 3  # of the cache is what is mixed at most: while it is read, the next is fetched, and what is prepared is behind
MEMORY = 192 << 20  # bytes of decoded blocks, of which a process keeps no more
DECODED = ("parquet",)  # forms of which a block is decoded whole to read a row


@dataclass(frozen=True)
class Order:
    """Of `blocks` so many shards (units of trainjobs.data.rows) are mixed block by block, and of these blocks so many, a `window`, row by
    row. A checkpoint keeps it: a run that goes on has the order it began with, however large the cache is there. Of `buckets` (see
    trainjobs.data.buckets) `window` is their unit."""

    kind: Literal["whole", "blocks", "buckets"] = "whole"
    window: int = 0
    shards: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "window": self.window, "shards": self.shards}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Order:
        return cls(kept["kind"], int(kept["window"]), int(kept["shards"]))


def chosen(train: Rows, cache: int, where: str) -> Order:
    """The order of what is trained on, where the cache takes so many bytes. What lies on this machine anyway needs none.

    JobError GTJ0114 when not even two shards fit into a third of the cache.
    """
    units, rows = train.units, train.lengths.tolist()
    sizes = [unit.size for unit in units]
    fetched = any(one.path is None for unit in units for one in unit.objects)
    decoded = train.records.form in DECODED
    fits = (not fetched or sum(sizes) <= cache) and (not decoded or sum(sizes) <= MEMORY)
    if len(rows) < 2 or (sum(rows) <= MOST and fits):
        return Order()
    shards = len(units)
    if fetched and sum(sizes) > cache and shards > 1:
        shards = _fitting(sizes, cache // PART)
        held = sum(sorted(sizes, reverse=True)[:shards])
        if held > cache // PART:
            why = f"two shards take {megabytes(held)}, and of {megabytes(cache)} a third is for those that are being read"
            how = f"raise data.cache to {-(-PART * held // 2**30)}Gi or more, or write the data in smaller shards"
            raise JobError("GTJ0114", "data.cache is too small for this data", where=where, why=why, how=how)
    window = min(shards if len(units) == len(rows) else len(rows), _fitting(rows, MOST))
    if decoded:
        each = [unit.size // unit.blocks for unit in units for _ in range(unit.blocks)]
        window = min(window, _fitting(each, MEMORY // PART))
    return Order("blocks", window, shards)


def _fitting(sizes: Sequence[int], most: int) -> int:
    """How many of them, whichever they are, are together at most so much; at least two."""
    return max(2, int(np.searchsorted(np.cumsum(np.sort(sizes)[::-1]), most, side="right")))


@dataclass(frozen=True, eq=False)
class Places:
    """Where the rows of an order lie. `lengths` is int64 [blocks]: rows of each block, which may be none; together at least one. `units` is
    int64 [blocks]: which shard each block is of, from 0 on and never less than the one before; without it each block is one."""

    order: Order
    lengths: Numbers
    units: Numbers | None = None
    _starts: Numbers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", starts(self.lengths))

    @classmethod
    def of(cls, order: Order, train: Rows) -> Places:
        units = np.repeat(np.arange(len(train.units)), [unit.blocks for unit in train.units])
        return cls(order, train.lengths, units)

    @property
    def length(self) -> int:
        """Rows of an epoch."""
        return int(self._starts[-1])

    def at(self, positions: Tensor, seed: int) -> tuple[Numbers, Numbers]:
        """(int64 [B] blocks, int64 [B] rows of them) at these positions (int64 [B], on the CPU) of the endless stream of data. Epoch e,
        positions e * length..(e + 1) * length - 1, holds every row once. A batch may span windows and epochs."""
        if self.order.kind == "whole":
            return within(self._starts, order(positions, seed, self.length).numpy())
        flat = positions.numpy()
        blocks, rows = np.empty(len(flat), np.int64), np.empty(len(flat), np.int64)
        epochs = flat // self.length
        for epoch in np.unique(epochs).tolist():
            course = _course(self, seed, epoch)
            here = np.flatnonzero(epochs == epoch)
            rest = flat[here] - epoch * self.length
            windows = np.searchsorted(course.begins, rest, side="right") - 1
            for window in np.unique(windows).tolist():
                there = here[windows == window]
                place = course.mixed(window)[flat[there] - epoch * self.length - course.begins[window]]
                number, rows[there] = within(starts(self.lengths[course.blocks(window)]), place.numpy().astype(np.int64))
                blocks[there] = course.blocks(window)[number]
        return blocks, rows

    def numbers(self, positions: Tensor, seed: int) -> Numbers:
        """int64 [B]: the same, counted through all blocks."""
        blocks, rows = self.at(positions, seed)
        return self._starts[blocks] + rows

    def coming(self, position: int, seed: int) -> Iterator[list[int]]:
        """The blocks that are mixed where this position is, then those that are mixed next, and so on, without end; blocks without rows are
        left out. Of the order `whole`, all blocks."""
        epoch, rest = divmod(position, self.length)
        while True:
            if self.order.kind == "whole":
                yield [block for block, rows in enumerate(self.lengths.tolist()) if rows]
            else:
                course = _course(self, seed, epoch)
                window = int(np.searchsorted(course.begins, rest, side="right")) - 1
                first = int(np.searchsorted(course.groups, window * self.order.window, side="right")) - 1
                for group in range(first, len(course.groups) - 1):
                    mixed = course.order[course.groups[group] : course.groups[group + 1]].tolist()
                    if found := [block for block in mixed if self.lengths[block]]:
                        yield found
            epoch, rest = epoch + 1, 0


@dataclass(frozen=True)
class _Course:
    """An epoch: its blocks in order; where its windows begin, int64 [windows] from 0 on; and where in `order` the blocks of so many shards
    as are mixed begin, int64 [groups + 1], the end among them."""

    window: int
    seed: int
    epoch: int
    order: Numbers
    begins: Numbers
    sizes: Numbers  # rows of each window
    groups: Numbers

    def blocks(self, window: int) -> Numbers:
        return self.order[window * self.window : (window + 1) * self.window]

    def mixed(self, window: int) -> Tensor:
        """A permutation of a window's rows."""
        return _mixed(int(self.sizes[window]), self.seed, self.epoch, window)


@lru_cache(maxsize=8)
def _course(places: Places, seed: int, epoch: int) -> _Course:
    lengths, window, each = places.lengths, places.order.window, max(1, places.order.shards)
    units = np.arange(len(lengths)) if places.units is None else places.units
    shards = permutation(int(units[-1]) + 1, "shards", seed, epoch).numpy()
    group = np.empty_like(shards)
    group[shards] = np.arange(len(shards)) // each  # of each shard, when it is its turn
    # Blocks by the group of their shard, and in it by a permutation of all blocks: a permutation of the group's own.
    mixed = permutation(len(lengths), "blocks", seed, epoch).numpy()
    order = mixed[np.argsort(group[units[mixed]], kind="stable")]
    groups = starts(np.bincount(group[units], minlength=int(group.max()) + 1))
    sizes = np.add.reduceat(lengths[order], np.arange(0, len(order), window))
    return _Course(window, seed, epoch, order, starts(sizes)[:-1], sizes, groups)


@lru_cache(maxsize=3)  # batches span two, and those prepared ahead may be in the next
def _mixed(size: int, seed: int, epoch: int, window: int) -> Tensor:
    return permutation(size, "window", seed, epoch, window).to(torch.int32 if size < 2**31 else torch.int64)
