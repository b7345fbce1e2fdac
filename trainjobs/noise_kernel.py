"""What noise.py computes, as one Triton kernel: a draw is one launch, where it is forty of elementwise operations.

The integers are those of noise.py to the last bit, and so are uniform numbers, which are integers times a power of two. Logarithm, cosine
and sine are the device's own, so normal numbers differ from a processor's by up to 5e-7, as torch's own on that device do.
Importing this imports Triton. The draw is an operator, `gentrain::noise`, so torch sees one operation whose shape it knows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BITS, UNIFORM, NORMAL, INTEGERS = range(4)

_BLOCK = 512  # numbers (pairs of normal ones) of a program: a power of two

# A kernel sees those globals alone that say that they are constants.
_GAMMA = tl.constexpr(0x9E3779B97F4A7C15)
_MIX1 = tl.constexpr(0xBF58476D1CE4E5B9)
_MIX2 = tl.constexpr(0x94D049BB133111EB)
_UNIT = tl.constexpr(2.0**-24)
_TURN = tl.constexpr(2.0 * 3.141592653589793 * 2.0**-24)
_UNIFORM, _NORMAL, _INTEGERS = tl.constexpr(UNIFORM), tl.constexpr(NORMAL), tl.constexpr(INTEGERS)


@triton.jit
def _mix(x):  # type: ignore[no-untyped-def]
    """SplitMix64's finalizer, on uint64."""
    x = (x ^ (x >> 30)) * _MIX1
    x = (x ^ (x >> 27)) * _MIX2
    return x ^ (x >> 31)


@triton.jit(do_not_specialize=["key", "count", "words", "blocks", "high"])  # type: ignore[untyped-decorator]
def _fill(samples, out, key, count, words, blocks, high, KIND: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """`blocks` programs for each of `samples` (int64 [B]) fill its row of `out` ([B, count]) from `words` numbers of its stream."""
    row = (tl.program_id(0) // blocks).to(tl.int64)
    at = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < words
    stream = _mix(tl.load(samples + row).to(tl.uint64) * _GAMMA + key.to(tl.uint64))
    bits = _mix(stream + (at + 1).to(tl.uint64) * _GAMMA)
    here = out + row * count + at
    if KIND == _NORMAL:
        radius = tl.sqrt_rn(tl.log(((bits >> 40).to(tl.float32) + 1.0) * _UNIT) * -2.0)
        angle = (bits & 0xFFFFFF).to(tl.float32) * _TURN
        tl.store(here, radius * tl.cos(angle), mask=inside)
        tl.store(here + words, radius * tl.sin(angle), mask=inside & (at + words < count))
    elif KIND == _UNIFORM:
        tl.store(here, (bits >> 40).to(tl.float32) * _UNIT, mask=inside)
    elif KIND == _INTEGERS:
        tl.store(here, (bits >> 24).to(tl.int64) % high, mask=inside)
    else:
        tl.store(here, bits.to(tl.int64, bitcast=True), mask=inside)


def _empty(samples: Tensor, key: int, kind: int, count: int, high: int) -> Tensor:
    dtype = torch.float32 if kind in (UNIFORM, NORMAL) else torch.int64
    return torch.empty(len(samples), count, dtype=dtype, device=samples.device)


def _drawn(samples: Tensor, key: int, kind: int, count: int, high: int) -> Tensor:
    out = _empty(samples, key, kind, count, high)
    words = (count + 1) // 2 if kind == NORMAL else count
    blocks = triton.cdiv(words, _BLOCK)
    if out.numel():
        with torch.cuda.device_of(samples):  # type: ignore[no-untyped-call]  # Triton launches on the current device
            _fill[(len(samples) * blocks,)](samples.contiguous(), out, key, count, words, blocks, high, KIND=kind, BLOCK=_BLOCK)
    return out


_LIBRARY = torch.library.Library("gentrain", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("noise(Tensor samples, int key, int kind, int count, int high) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.impl("noise", _drawn, "CUDA")  # type: ignore[no-untyped-call]
# On a processor's memory Triton's interpreter alone launches it.
_LIBRARY.impl("noise", _drawn, "CPU")  # type: ignore[no-untyped-call]
_LIBRARY.impl("noise", _empty, "Meta")  # type: ignore[no-untyped-call]


def draw(samples: Tensor, key: int, kind: int, count: int, high: int = 1) -> Tensor:
    """[B, count] for `samples` (int64 [B]) of the streams of `key` (a hash of seed and name, 63 bits): int64 of 64 random bits (BITS) or
    in [0, high) (INTEGERS), float32 in [0, 1) (UNIFORM) or standard normal (NORMAL)."""
    drawn: Tensor = torch.ops.gentrain.noise.default(samples, key, kind, count, high)
    return drawn
