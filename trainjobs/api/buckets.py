"""Pictures of several shapes, as users write it, and the rules that come with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from trainjobs.api.fields import Model
from trainjobs.api.rule import Breach

Side = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]


class Buckets(Model):
    """Pictures keep about their shapes: each is scaled to cover the shape of several whose ratio of width to height is nearest, and cropped
    in its middle; a micro-batch is of one shape."""

    step: Annotated[int, Field(ge=8, le=512, multiple_of=8)] = Field(
        64, description="Sides are multiples of this, and so is data.images.size [bucket_reso_steps]."
    )
    min_side: Side | None = Field(
        None, description="The shortest side, a multiple of step; default: half of data.images.size [min_bucket_reso]."
    )
    max_side: Side | None = Field(
        None, description="The longest side, a multiple of step; default: twice data.images.size [max_bucket_reso]."
    )

    def low(self, size: int) -> int:
        return self.min_side or max(self.step, size // 2 // self.step * self.step)

    def high(self, size: int) -> int:
        return self.max_side or 2 * size


def sides_fit(size: int, buckets: Buckets | None) -> Iterator[Breach]:
    """Breaches of data.images."""
    if buckets is None:
        return
    step, low, high = buckets.step, buckets.min_side, buckets.max_side
    if size % step:
        why = "the square bucket is of that size, and all sides are multiples of buckets.step"
        how = f"write {max(1, size // step) * step} or {-(-size // step) * step}, or a smaller step"
        yield Breach(("size",), f"a size of {size} with a step of {step}", why, how)
    for name, side in (("minSide", low), ("maxSide", high)):
        if side is not None and side % step:
            how = f"write {max(1, side // step) * step} or {-(-side // step) * step}"
            yield Breach(("buckets", name), f"{name}: {side} is no multiple of step: {step}", "no bucket could have that side", how)
    if (low is not None and low > size) or (high is not None and high < size):
        why = f"the square bucket has sides of {size}, and areas are at most its own"
        how = f"write minSide: {size} or less, and maxSide: {size} or more"
        yield Breach(("buckets",), "sides that leave out data.images.size", why, how, on_key=True)


SIDES = (
    "!has(self.buckets) || (self.size % self.buckets.step == 0 && "
    "(!has(self.buckets.minSide) || (self.buckets.minSide % self.buckets.step == 0 && self.buckets.minSide <= self.size)) && "
    "(!has(self.buckets.maxSide) || (self.buckets.maxSide % self.buckets.step == 0 && self.buckets.maxSide >= self.size)))"
)
