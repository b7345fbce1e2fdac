"""The order of rows that lie in blocks (shards, row groups), at any size: a pure function of the seed and of the position.

`whole`: one permutation of all rows, as trainjobs.data.sampler has it. `blocks`: a permutation of the blocks, of which so many at a time, a
window, are mixed by a permutation of their rows. So only a window has to be on the machine, and the next one can be fetched meanwhile.
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
PART = 3  # of the cache is a window at most: while one is read, the next is fetched, and what is prepared is behind


@dataclass(frozen=True)
class Order:
    """`window` counts blocks. A checkpoint keeps it: a run that goes on has the order it began with, however large the cache is there."""

    kind: Literal["whole", "blocks"] = "whole"
    window: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "window": self.window}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Order:
        return cls(kept["kind"], int(kept["window"]))


def chosen(rows: Sequence[int], sizes: Sequence[int], cache: int | None, where: str) -> Order:
    """The order for blocks of so many rows and so many bytes, where the cache takes so many bytes (None: the data lies here anyway).

    JobError GTJ0114 when not even two blocks fit into a third of the cache.
    """
    if len(rows) < 2 or (sum(rows) <= MOST and (cache is None or sum(sizes) <= cache)):
        return Order()
    largest, most = sorted(sizes, reverse=True), sorted(rows, reverse=True)
    budget = sum(sizes) if cache is None else cache // PART
    window, held, mixed = 0, 0, 0
    for size, count in zip(largest, most, strict=True):  # the largest ones might come together
        if window >= 2 and (held + size > budget or mixed + count > MOST):
            break
        window, held, mixed = window + 1, held + size, mixed + count
    if held > budget:
        needed = PART * held
        why = f"two parts of the data that are read as a whole take {megabytes(held)}, and of {megabytes(cache or 0)} a third is for them"
        how = f"raise data.cache to {-(-needed // 2**30)}Gi or more, or write the data in smaller shards"
        raise JobError("GTJ0114", "data.cache is too small for this data", where=where, why=why, how=how)
    return Order("blocks", window)


@dataclass(frozen=True, eq=False)
class Places:
    """Where the rows of an order lie. `lengths` is int64 [blocks]: rows of each block, which may be none; together at least one."""

    order: Order
    lengths: Numbers
    _starts: Numbers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", starts(self.lengths))

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

    def windows(self, position: int, seed: int) -> Iterator[list[int]]:
        """The blocks of the window that holds this position, of the next one, and so on, without end; those without rows are left out.
        Of the order `whole`, all blocks."""
        epoch, rest = divmod(position, self.length)
        while True:
            if self.order.kind == "whole":
                yield [block for block, rows in enumerate(self.lengths.tolist()) if rows]
            else:
                course = _course(self, seed, epoch)
                for window in range(int(np.searchsorted(course.begins, rest, side="right")) - 1, len(course.begins)):
                    if found := [block for block in course.blocks(window).tolist() if self.lengths[block]]:
                        yield found
            epoch, rest = epoch + 1, 0


@dataclass(frozen=True)
class _Course:
    """An epoch: its blocks in order, and where its windows begin, int64 [windows] from 0 on."""

    window: int
    seed: int
    epoch: int
    order: Numbers
    begins: Numbers
    sizes: Numbers  # rows of each window

    def blocks(self, window: int) -> Numbers:
        return self.order[window * self.window : (window + 1) * self.window]

    def mixed(self, window: int) -> Tensor:
        """A permutation of a window's rows."""
        return _mixed(int(self.sizes[window]), self.seed, self.epoch, window)


@lru_cache(maxsize=8)
def _course(places: Places, seed: int, epoch: int) -> _Course:
    lengths, window = places.lengths, places.order.window
    blocks = permutation(len(lengths), "blocks", seed, epoch).numpy()
    sizes = np.add.reduceat(lengths[blocks], np.arange(0, len(blocks), window))
    return _Course(window, seed, epoch, blocks, starts(sizes)[:-1], sizes)


@lru_cache(maxsize=3)  # batches span two, and those prepared ahead may be in the next
def _mixed(size: int, seed: int, epoch: int, window: int) -> Tensor:
    return permutation(size, "window", seed, epoch, window).to(torch.int32 if size < 2**31 else torch.int64)


def order_for(train: Rows, cache: int, where: str) -> Order:
    """`chosen` for what is trained on. What lies on this machine anyway needs no cache."""
    fetched = any(one.path is None for unit in train.units for one in unit.objects)
    return chosen([unit.rows for unit in train.units], [unit.size for unit in train.units], cache if fetched else None, where)
