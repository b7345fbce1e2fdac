"""Pictures of several shapes, and their order: whole micro-batches are of one. `data.images.buckets`.

The shapes are those of kohya's sd-scripts: for each side from the shortest to the longest, in steps, the greatest other side of which the
area is at most size^2, both ways round; and the square. A picture belongs to the shape of the nearest ratio of width to height.

Order. U samples are a unit: a micro-batch, or the global batch where the manifest leaves open what one is. The n pictures of a shape are an
endless stream of their own, permuted anew each time that it was passed, and cut into units. Epoch e has of each shape the units that begin
before its pictures were passed e + 1 times and are whole by then, floor((e + 1) n / U) - floor(e n / U) of them, and the shapes take turns
in an order permuted anew. So the sample at a position is a function of it and the seed, whatever a batch is cut into; nothing is left out:
what fills no unit at the end of an epoch is in the first one of that shape in the next; and each picture passes as often as each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trainjobs.api.buckets import Buckets
from trainjobs.api.errors import JobError
from trainjobs.data.rows import Numbers
from trainjobs.data.sampler import order, permutation
from trainjobs.noise import mix

Shape = tuple[int, int]  # width and height, in pixels
FIELD = "data.images.buckets"
SHOWN = 8  # shapes in a line


def shapes(size: int, buckets: Buckets) -> list[Shape]:
    """In the order of their ratios, the highest picture first."""
    step, low, high = buckets.step, buckets.low(size), buckets.high(size)
    found = {(size, size)}
    for side in range(-(-low // step) * step, high + 1, step):
        other = min(high, size**2 // side // step * step)
        if other >= low:
            found |= {(side, other), (other, side)}
    return sorted(found, key=lambda shape: (shape[0] / shape[1], shape))


def nearest(sizes_N2: Numbers, every: Sequence[Shape]) -> Numbers:
    """int64 [N]: of pictures of such widths and heights the numbers of their shapes."""
    ratios_N = sizes_N2[:, 0] / sizes_N2[:, 1]
    ratios_S = np.array([width / height for width, height in every])
    found: Numbers = np.abs(ratios_N[:, None] - ratios_S[None, :]).argmin(axis=1).astype(np.int64)
    return found


@dataclass(frozen=True, eq=False)
class Bucketed:
    """`which` is int64 [N], of each training sample the number of its shape; `unit` samples pass together."""

    shapes: tuple[Shape, ...]
    which: Numbers
    unit: int
    members: tuple[Numbers, ...] = field(init=False, repr=False)  # of each shape, its samples

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(np.flatnonzero(self.which == number) for number in range(len(self.shapes))))

    @property
    def counts(self) -> Numbers:
        """int64 [shapes]"""
        return np.bincount(self.which, minlength=len(self.shapes))

    def numbers(self, positions: Tensor, seed: int) -> Numbers:
        """int64 [B]: the training samples at these positions (int64 [B], on the CPU) of the endless stream of data."""
        flat = positions.numpy()
        found = np.empty(len(flat), np.int64)
        units = flat // self.unit
        for unit in np.unique(units).tolist():
            here = units == unit
            shape, own = self._unit(unit, seed)
            places = torch.from_numpy(own * self.unit + flat[here] % self.unit)
            members = self.members[shape]
            found[here] = members[order(places, mix(seed, "bucket", shape), len(members)).numpy()]
        return found

    def shape(self, positions: Tensor, seed: int) -> Shape:
        """Of the micro-batch at these positions. JobError GTJ0103 where it is none of one unit, as after a change of batch.micro."""
        units = np.unique(positions.numpy() // self.unit).tolist()
        if len(units) != 1:
            why = f"pictures of one shape come {self.unit} at a time, as they did when the run began, and {len(positions)} pass together"
            how = f"write a training.batch.micro that divides {self.unit}, or begin anew"
            raise JobError("GTJ0103", "a micro-batch would have pictures of several shapes", where="training.batch.micro", why=why, how=how)
        return self.shapes[self._unit(units[0], seed)[0]]

    def _unit(self, number: int, seed: int) -> tuple[int, int]:
        """(which shape unit `number` of the stream is of, which unit of that shape's own stream)."""
        epoch = number * self.unit // len(self.which)  # a shape's rest is of a later epoch: never too high
        while self._before(epoch + 1) <= number:
            epoch += 1
        shape, own = _epoch(self, seed, epoch)[number - self._before(epoch)].tolist()
        return shape, own

    def _before(self, epoch: int) -> int:
        """Units in front of an epoch."""
        return int((epoch * self.counts // self.unit).sum())

    @property
    def said(self) -> str:
        """What there is, in words."""
        some = self.filled
        more = f" and {len(some) - SHOWN} shapes more" if len(some) > SHOWN else ""
        parts = [f"pictures by width x height: {', '.join(f'{name}: {count}' for name, count in some[:SHOWN])}{more}"]
        if over := int((self.counts % self.unit).sum()):
            parts.append(f"{over} fill no micro-batch of {self.unit} in the first epoch, and pass in the next, none is left out")
        if few := int(self.counts[self.counts < self.unit].sum()):
            parts.append(f"{few} are of shapes of fewer than {self.unit}, whose micro-batches have the same picture more than once")
        return "; ".join(parts)

    @property
    def filled(self) -> tuple[tuple[str, int], ...]:
        """("256x128", how many pictures) of each shape that has any, the most frequent first."""
        counted = [(count, shape) for count, shape in zip(self.counts.tolist(), self.shapes, strict=True) if count]
        return tuple((f"{width}x{height}", count) for count, (width, height) in sorted(counted, reverse=True))


@lru_cache(maxsize=4)
def _epoch(places: Bucketed, seed: int, epoch: int) -> Numbers:
    """int64 [units, 2]: of each unit of an epoch its shape, and its number in that shape's stream."""
    first, last = (places.counts * turn // places.unit for turn in (epoch, epoch + 1))
    of = np.repeat(np.arange(len(first)), last - first)
    units = np.empty((len(of), 2), np.int64)
    units[:, 0] = of[permutation(len(of), "units", seed, epoch).numpy()]
    for shape, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        units[units[:, 0] == shape, 1] = np.arange(begin, end)  # a stream is passed in its order
    return units
