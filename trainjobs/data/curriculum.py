"""Easy samples first, or small pictures: a source that wraps a source. `data.curriculum`.

Ranked (Platanios et al., "Competence-based curriculum learning for neural machine translation", 2019, arXiv 1903.09848, equation 3): while
c(t) = c_0 + (1 - c_0) t / T < 1 a sample is drawn uniformly, with replacement, from the share c(t) of all that are the easiest; t is the
number of samples seen. Behind T the order is that without a curriculum.

By resolution (Karras et al., "Progressive growing of GANs", 2018, arXiv 1710.10196, without its fade): until T pictures are the means of
areas of what they are, so that a fully convolutional network learns shapes cheaply first.

All of it is a function of seed and position: nothing is saved to resume, and it does not matter how a batch is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from trainjobs.api.curriculum import Curriculum
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.ahead import Expecting, Late, ahead, close
from trainjobs.data.sampler import order
from trainjobs.data.source import Conditional, Counted, DataInfo, Source
from trainjobs.data.streamed import StreamedImages
from trainjobs.noise import Noise, mix
from trainjobs.world import World

Numbers = Callable[[Tensor, int], Tensor]  # which training samples are at these positions, by the source's own count


def eased(opened: Source, spec: Spec, world: World, ends: ExitStack) -> Source:
    """The source, prepared beside the steps until `ends`, with the curriculum of the job. JobError GTJ0108 where its samples have no
    difficulty. Every rank calls this."""
    source = ahead(opened, spec.data.workers, world)
    ends.callback(close, source)
    curriculum = spec.data.curriculum
    if curriculum is None:
        return source
    until = curriculum.steps * spec.samples_per_step
    if curriculum.by == "resolution":
        return Eased(source, until, small=curriculum.size)
    return Eased(source, until, ranks=Ranks(*_difficulty(opened, curriculum, spec.training.seed), curriculum.start, until))


def _difficulty(opened: Source, curriculum: Curriculum, seed: int) -> tuple[Tensor, Numbers]:
    length = opened.info.length
    if curriculum.by == "column" and opened.info.difficulty is not None:
        if not isinstance(opened, StreamedImages):
            return opened.info.difficulty, lambda positions, seed: order(positions, seed, length)
        if opened.places.order.kind == "whole":
            return opened.info.difficulty, lambda positions, seed: torch.from_numpy(opened.places.numbers(positions, seed))
        why = "its pictures are read shard by shard, and the easiest lie in all of them"
        raise JobError("GTJ0108", "there is too much data for a curriculum", where="data.curriculum", why=why, how="raise data.cache")
    if curriculum.by == "length" and isinstance(opened, Counted):
        every = torch.arange(length)
        units = torch.empty_like(every)
        units[order(every, seed, length)] = opened.units(every, seed)
        return units.double(), lambda positions, seed: order(positions, seed, length)
    why = "of these records nobody counts the tokens" if curriculum.by == "length" else "these samples have no columns of numbers"
    raise JobError("GTJ0108", f"there is no curriculum by {curriculum.by}", where="data.curriculum.by", why=why, how="take it out")


@dataclass(frozen=True, eq=False)
class Ranks:
    """`difficulty` is float64 [N], of each sample by the number that `numbers` gives for positions; ties stay in the order of numbers."""

    difficulty: Tensor
    numbers: Numbers
    start: float
    until: int

    def moved(self, positions: Tensor, seed: int) -> Tensor:
        """int64 [B]: positions at which the source has the samples that the curriculum puts at these."""
        length = len(self.difficulty)
        share = (self.start + (1.0 - self.start) * positions.double() / self.until).clamp(max=1.0)
        eligible = (share * length).ceil().clamp(min=1.0)
        drawn = (Noise(mix(seed, "curriculum"), positions).uniform("rank", 1)[:, 0].double() * eligible).long().clamp(max=length - 1)
        return torch.where(positions < self.until, _places(self, seed)[drawn], positions)


@lru_cache(maxsize=4)
def _places(ranks: Ranks, seed: int) -> Tensor:
    """int64 [N]: where in the first epoch the samples are, the easiest first."""
    every = torch.arange(len(ranks.difficulty))
    place = torch.empty_like(every)
    place[ranks.numbers(every, seed)] = every
    return place[ranks.difficulty.argsort(stable=True)]


@dataclass(frozen=True, eq=False)
class Eased:
    """Of positions below `until` the samples by their ranks, or pictures of `small` pixels."""

    source: Source
    until: int
    ranks: Ranks | None = None
    small: int | None = None

    @property
    def info(self) -> DataInfo:
        return self.source.info

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        found = self.source.batch(self._moved(positions, seed), seed, noise)
        if self.small is not None and int(positions[0]) < self.until:  # a step's samples are all on one side
            found |= {"image": F.interpolate(found["image"], size=(self.small, self.small), mode="area")}
        return found

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self.source.heldout_batch(indices)

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        return self.source.conditions(rows) if isinstance(self.source, Conditional) else {}

    def units(self, positions: Tensor, seed: int) -> Tensor:
        assert isinstance(self.source, Counted), "asked of sources of records only"
        return self.source.units(self._moved(positions, seed), seed)

    def depth(self, positions: Tensor) -> int:
        return self.source.depth(positions) if isinstance(self.source, Expecting) else 0

    def expect(self, coming: Sequence[Tensor], seed: int) -> None:
        if isinstance(self.source, Expecting):
            self.source.expect([self._moved(positions, seed) for positions in coming], seed)

    def tell(self, late: Late) -> None:
        if isinstance(self.source, Expecting):
            self.source.tell(late)

    def _moved(self, positions: Tensor, seed: int) -> Tensor:
        return positions if self.ranks is None else self.ranks.moved(positions, seed)


def numbers_of(values: Sequence[object], column: str, where: str) -> Tensor:
    """float64 [N] of a column's values. JobError GTJ0113 where one is no finite number."""
    for number, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            what, why = f"column {column} does not say how hard a sample is", f"row {number} holds {value!r:.40}, which is no number"
            raise JobError("GTJ0113", what, where=where, why=why, how="name another column in data.curriculum.column")
    return torch.tensor(values, dtype=torch.float64)
