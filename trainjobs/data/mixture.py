"""A mixture of sources, each with a weight: whose turn it is at a position, a pure function of the seed and of the position.

Positions come in blocks of 1,024. How often each source has had its turn by the end of a block are Webster's numbers for that many
turns (the method of major fractions): shares by the weights, what was rounded carried on, so the shares of the whole stream are exact and
no count ever goes back. Within a block the turns are permuted by the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import lcm

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainjobs.data.sampler import permutation

BLOCK = 1024

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mixture:
    """`weights` as the manifest has them, each above 0."""

    weights: tuple[float, ...]
    _whole: tuple[int, ...] = field(init=False, repr=False)  # the same as whole numbers: 0.1 and 0.3 are 1 and 3

    def __post_init__(self) -> None:
        exact = [Fraction(repr(float(weight))) for weight in self.weights]
        scale = lcm(*(weight.denominator for weight in exact))
        object.__setattr__(self, "_whole", tuple(int(weight * scale) for weight in exact))

    def at(self, positions: Tensor, seed: int) -> tuple[Numbers, Numbers]:
        """(int64 [B] number of the source, int64 [B] position in its own stream) at these positions (int64 [B], on the CPU)."""
        flat = positions.numpy()
        which, within = np.empty(len(flat), np.int64), np.empty(len(flat), np.int64)
        blocks = flat // BLOCK
        for block in np.unique(blocks).tolist():
            here = blocks == block
            turns = _turns(self, seed, block)
            which[here], within[here] = turns[:, flat[here] - block * BLOCK]
        return which, within

    def counts(self, turns: int) -> list[int]:
        """How many of the first so many turns are each source's, in integers: the seats of Webster's method."""
        total = sum(self._whole)
        # With the divisor total / turns a source has weight / divisor, rounded; in all that is at most half a source each off.
        found = [(2 * weight * turns + total) // (2 * total) for weight in self._whole]
        # Source s takes its seat number k + 1 while (k + 1/2) / weight is the least of all: fractions, compared exactly.
        while sum(found) < turns:
            least = min(range(len(found)), key=lambda source: (Fraction(2 * found[source] + 1, self._whole[source]), source))
            found[least] += 1
        while sum(found) > turns:
            worst = max(
                (source for source in range(len(found)) if found[source]),
                key=lambda source: (Fraction(2 * found[source] - 1, self._whole[source]), source),
            )
            found[worst] -= 1
        return found


@lru_cache(maxsize=16)
def _turns(mixture: Mixture, seed: int, block: int) -> Numbers:
    """int64 [2, BLOCK]: whose turn, and the how many-th of its own."""
    before, after = (np.array(mixture.counts(BLOCK * end)) for end in (block, block + 1))
    which = np.repeat(np.arange(len(before)), after - before)[permutation(BLOCK, "mixture", seed, block).numpy()]
    within = np.empty_like(which)
    for source, first in enumerate(before.tolist()):
        own = which == source
        within[own] = first + np.arange(own.sum())
    return np.stack([which, within])


def interleaved(counts: Sequence[int]) -> tuple[Numbers, Numbers]:
    """(int64 [N] source, int64 [N] number in it): all of `counts`, evenly among each other, so that the first few are a fair sample."""
    numbers = np.concatenate([np.arange(count) for count in counts])
    sources = np.repeat(np.arange(len(counts)), counts)
    order = np.argsort((numbers + 0.5) / np.repeat(counts, counts), kind="stable")
    return sources[order], numbers[order]


def apart(which: Numbers, within: Numbers) -> dict[int, tuple[Tensor, Tensor]]:
    """By source, (int64 [b] where in the batch its rows are, int64 [b] their positions in its own stream)."""
    found = {}
    for source in np.unique(which).tolist():
        here = np.flatnonzero(which == source)
        found[source] = torch.from_numpy(here), torch.from_numpy(within[here])
    return found
