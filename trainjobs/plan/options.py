"""Ways to run a job: how it may be cut, on which nodes, what each needs, takes and costs; the best first. Pure.

Time is what was measured of the job's own steps, else operations over what the device is built for, times a share of it that training of
the family is assumed to reach: always a range; cost is that time on the nodes that the workers take. Both are of the training alone:
nodes that come, images that are pulled, evaluations and checkpoints are beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainjobs.api.job import Spec
from trainjobs.plan.batch import Cut
from trainjobs.plan.devices import REACHED, Device
from trainjobs.plan.measured import Pace
from trainjobs.plan.memory import Beside, Weights, fits, peak

BEST = 5


@dataclass(frozen=True)
class Pool:
    """Nodes to run on. `price` in USD per node and hour, and where it is from; None where there is none. No `device`: its memory is
    what counts, in bytes. `pace`, where a step was measured there, by a group of a size, counts before what its device is built for."""

    name: str
    memory: int
    device: Device | None = None
    per_node: int = 0
    price: float | None = None
    source: str = ""
    pace: Pace | None = None


@dataclass(frozen=True)
class Step:
    """What a rank's step needs and computes, as a function of its micro-batch: from two that were looked at, in a straight line, because
    activations and operations grow with the rows, and weights do not."""

    weights: Weights
    seen: Mapping[int, tuple[Beside, int]]  # by micro-batch: bytes beside the states, and operations of one micro-batch

    def beside(self, micro: int) -> Beside:
        return Beside(*(self._line(micro, [(rows, pick(found[0])) for rows, found in self.seen.items()]) for pick in (_whole, _halved)))

    def flops(self, micro: int) -> int:
        return self._line(micro, [(rows, found[1]) for rows, found in self.seen.items()])

    @staticmethod
    def _line(at: int, points: Sequence[tuple[int, int]]) -> int:
        if not points:
            return 0
        (low, first), (high, second) = min(points), max(points)
        slope = (second - first) / (high - low) if high > low else first / low
        return max(0, round(first + slope * (at - low)))


def _whole(beside: Beside) -> int:
    return beside.whole


def _halved(beside: Beside) -> int:
    return beside.halved


@dataclass(frozen=True)
class Option:
    """`hours` and `usd` from and to; None where they are not known."""

    pool: Pool
    stage: int
    cut: Cut
    need: int
    hours: tuple[float, float] | None
    usd: tuple[float, float] | None

    @property
    def fits(self) -> bool:
        return fits(self.need, self.pool.memory)


def options(spec: Spec, step: Step, pools: Sequence[Pool], *, highest: int = 3) -> list[Option]:
    """Every way, the best first: of those that fit the cheapest, then the quickest, then the one with the lowest stage and the least
    accumulation; behind them those that do not fit, by what they lack."""
    stages = [spec.deepspeed.stage] if spec.deepspeed.stage != "auto" else range(highest + 1)
    found = [
        _largest([_option(spec, step, pool, stage, cut) for cut in cuts]) for pool in pools for cuts in _cuts(spec) for stage in stages
    ]
    return sorted(found, key=_rank)


def _largest(cuts: Sequence[Option]) -> Option:
    """Of the same but for their micro-batch: the one that fits with the largest, else the smallest."""
    return next((one for one in cuts if one.fits), cuts[-1])


def _rank(one: Option) -> tuple[object, ...]:
    lack = 0.0 if one.fits else one.need / max(1, one.pool.memory)
    money = one.usd[1] if one.usd else math.inf
    hours = one.hours[1] if one.hours else math.inf
    return not one.fits, lack, money, hours, one.stage, one.cut.accumulation, one.pool.name


def _cuts(spec: Spec) -> Iterator[list[Cut]]:
    """For every size of the group, its micro-batches, the largest first: the manifest's, or those that halve a rank's part."""
    batch, (low, high), each = spec.training.batch, spec.compute.worker_range, spec.compute.each
    for workers in sorted({low, high}):
        ranks = workers * each
        if batch.global_ % ranks:
            continue
        part = batch.global_ // ranks
        sizes = [batch.micro] if batch.micro else list(_halved_down(part))
        yield [Cut(ranks, micro, part // micro) for micro in sizes if part % micro == 0]


def _halved_down(part: int) -> Iterator[int]:
    while True:
        yield part
        if part % 2 or part == 1:
            return
        part //= 2


def _option(spec: Spec, step: Step, pool: Pool, stage: int, cut: Cut) -> Option:
    need = peak(step.weights, step.beside(cut.micro), stage, cut.workers, spec.training.precision)
    hours = _hours(spec, step, pool, cut)
    nodes = _nodes(spec, pool, cut)
    usd = (hours[0] * nodes * pool.price, hours[1] * nodes * pool.price) if hours and pool.price is not None else None
    return Option(pool, stage, cut, need, hours, usd)


def _hours(spec: Spec, step: Step, pool: Pool, cut: Cut) -> tuple[float, float] | None:
    if pool.pace is not None and pool.pace.ranks == cut.workers:
        return spec.training.steps * pool.pace.low / 3600, spec.training.steps * pool.pace.high / 3600
    rate = pool.device.peak(spec.training.precision) if pool.device else 0.0
    if not rate or not step.flops(cut.micro):
        return None
    seconds = step.flops(cut.micro) * cut.accumulation * spec.training.steps / rate
    slow, quick = REACHED[spec.family]
    return seconds / quick / 3600, seconds / slow / 3600


def _nodes(spec: Spec, pool: Pool, cut: Cut) -> int:
    """Nodes that the workers take whole, as whoever rents them pays."""
    workers = cut.workers // spec.compute.each
    fit = max(1, pool.per_node // spec.compute.gpus_per_worker) if spec.compute.gpus_per_worker else 1
    return -(-workers // fit)
