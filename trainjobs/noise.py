"""Randomness as a pure function of (seed, step, phase, sample).

Noise drawn from a stateful generator depends on everything that was drawn before it, and so on how the batch was cut into workers
and micro-batches. Here each sample of the global batch owns a stream, and the k-th number of a stream is a hash of (stream, k):
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), the counter-based use of which is its
definition: output k is mix(key + k * GAMMA). Nothing has to be saved to resume, and two workers draw what one would have drawn.

A draw is forty elementwise operations. On a GPU each is a launch, so there a draw is one Triton kernel (noise_kernel.py) where Triton
compiles it. On a processor numpy computes the integers (noise_words.py), in less time, to the last bit the same; torch's operations
are left where torch follows a program without its numbers. Integers and uniform numbers are the same on every device and by any way;
logarithm, cosine and sine are the device's own, so normal numbers of a GPU agree to 5e-7.
"""

from __future__ import annotations

import logging
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from trainjobs import noise_words

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as `value`; torch has no full uint64 arithmetic."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's `>>` on int64 copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer, elementwise on int64 (arithmetic wraps modulo 2**64)."""
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def mix(*parts: int | str) -> int:
    """A 63-bit seed from integers and strings, the same in every process (Python's own `hash` of a string is not)."""
    state = 0
    for part in parts:
        word = zlib.crc32(part.encode()) if isinstance(part, str) else part
        state = (state + word + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


@cache
def _kernel(device: str) -> ModuleType | None:
    """noise_kernel.py for devices of this type, or None: on a processor, where GENTRAIN_NOISE_KERNEL is 0,
    and where Triton is missing or does not compile it, which is told once, since normal numbers' last bits differ."""
    if device != "cuda":
        return None
    try:
        if os.environ.get("GENTRAIN_NOISE_KERNEL") == "0":
            raise RuntimeError("GENTRAIN_NOISE_KERNEL is 0")
        from trainjobs import noise_kernel

        tried = torch.arange(3, device=device)
        for kind in range(4):
            noise_kernel.draw(tried, 1, kind, 5, 7)  # compiles it
    except Exception as error:  # whatever Triton, the C compiler it asks for or the driver raises: there is another way
        words = "noise is drawn by torch's operations, not by one kernel: %s: %s"
        logging.getLogger(__name__).warning(words, type(error).__name__, error)
        return None
    return noise_kernel


def _drawer(samples: Tensor) -> ModuleType | None:
    """What draws instead of torch's operations. A tensor without numbers (a fake step's) or one that is compiled stays with those."""
    if kernel := _kernel(samples.device.type):
        return kernel
    numbers = type(samples) is Tensor and samples.device.type == "cpu" and not torch.compiler.is_compiling()
    return noise_words if numbers else None


@dataclass(frozen=True)
class Noise:
    """The noise of some samples of one phase of one step.

    `samples` is int64 [B]: each sample's number, unique within the run (its position in the stream of data). Every draw has a name;
    draws of different names are independent, the same name draws the same numbers again.
    """

    seed: int
    samples: Tensor

    @classmethod
    def of(cls, seed: int, step: int, phase: str, samples: Tensor) -> Noise:
        """The noise of `samples` (int64 [B]) in one phase of one step of a run."""
        return cls(mix(seed, step, phase), samples)

    def bits(self, name: str, count: int) -> Tensor:
        """int64 [B, count], each of the 64 bits uniform."""
        if kernel := _drawer(self.samples):
            return self._drawn(kernel, kernel.BITS, name, (count,))
        key = _mix(self.samples * _GAMMA + _signed(mix(self.seed, name)))
        counter = torch.arange(1, count + 1, device=self.samples.device) * _GAMMA
        return _mix(key[:, None] + counter)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """float32 [B, *shape], uniform in [0, 1)."""
        if kernel := _drawer(self.samples):
            return self._drawn(kernel, kernel.UNIFORM, name, shape)
        count = math.prod(shape)
        return (_shift(self.bits(name, count), 40).to(torch.float32) * 2.0**-24).view(-1, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """float32 [B, *shape], standard normal, by Box and Muller: 64 bits give two of them."""
        if kernel := _drawer(self.samples):
            return self._drawn(kernel, kernel.NORMAL, name, shape)
        count = math.prod(shape)
        bits = self.bits(name, (count + 1) // 2)
        # (k + 1) / 2**24 is in (0, 1], so its logarithm is finite; the two halves of the word are independent.
        radius = (_shift(bits, 40).to(torch.float32).add_(1.0)).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
        angle = (bits & 0xFFFFFF).to(torch.float32).mul_(2.0 * math.pi * 2.0**-24)
        pair = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return pair[:, :count].reshape(-1, *shape)

    def normals(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """`normal` of each name, which on a processor is cheaper at once."""
        if type(self) is not Noise or _drawer(self.samples) is not noise_words:
            return {name: self.normal(name, *shape) for name, shape in shapes.items()}
        keys, counts = [mix(self.seed, name) for name in shapes], [math.prod(shape) for shape in shapes.values()]
        drawn = noise_words.normals(self.samples, keys, counts)
        return {name: numbers.view(-1, *shape) for (name, shape), numbers in zip(shapes.items(), drawn, strict=True)}

    def integers(self, name: str, high: int, *shape: int) -> Tensor:
        """int64 [B, *shape], uniform in [0, high), high < 2**31; the bias of the modulus is below high / 2**40."""
        if kernel := _drawer(self.samples):
            return self._drawn(kernel, kernel.INTEGERS, name, shape, high)
        count = math.prod(shape)
        return (_shift(self.bits(name, count), 24) % high).view(-1, *shape)

    def _drawn(self, kernel: ModuleType, kind: int, name: str, shape: tuple[int, ...], high: int = 1) -> Tensor:
        drawn: Tensor = kernel.draw(self.samples, mix(self.seed, name), kind, math.prod(shape), high)
        return drawn.view(-1, *shape)


@dataclass(frozen=True)
class Between(Noise):
    """Noise on the way from that of `samples` to that of `other`, `share` (float [B], 0 to 1) of it: on a quarter of a circle, on which
    independent normal numbers stay normal. Numbers that are not normal are those of `samples`."""

    other: Tensor
    share: Tensor

    @classmethod
    def of(cls, seed: int, places: Tensor, steps: int) -> Between:  # type: ignore[override]
        """At `places` (int64 [B]) of the way through samples 0, 1, 2 and so on, with so many steps from one to the next."""
        first = places // steps
        return cls(seed, first, first + 1, (places % steps).float() / steps)

    @property
    def ends(self) -> tuple[Noise, Noise]:
        return Noise(self.seed, self.samples), Noise(self.seed, self.other)

    def normal(self, name: str, *shape: int) -> Tensor:
        angle = (self.share * (math.pi / 2.0)).view(-1, *[1] * len(shape))
        here, there = (end.normal(name, *shape) for end in self.ends)
        return angle.cos() * here + angle.sin() * there
