"""What noise.py computes, on a processor: its integers by numpy, which has unsigned ones and pays less for each operation.

Most draws are small, and what an operation costs beside its arithmetic is most of them; large ones are drawn by blocks that stay in the
cache. Logarithm, root, cosine and sine are torch's, so every number is to the last bit that of noise.py's own operations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BITS, UNIFORM, NORMAL, INTEGERS = range(4)

Words = NDArray[np.uint64]
Floats = NDArray[np.float32]

_BLOCK = 1 << 14  # words of a block: with its scratch 256 kB
_FEW = 1 << 12  # numbers of a name that are drawn together with those of others
_GAMMA, _MIX1, _MIX2 = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_S24, _S27, _S30, _S31, _S40 = (np.uint64(bits) for bits in (24, 27, 30, 31, 40))
_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)  # of a word's halves
_UNIT, _TURN = 2.0**-24, 2.0 * np.pi * 2.0**-24


def _mix(x: Words) -> Words:
    """SplitMix64's finalizer, in place."""
    t = x >> _S30
    x ^= t
    x *= _MIX1
    np.right_shift(x, _S27, out=t)
    x ^= t
    x *= _MIX2
    np.right_shift(x, _S31, out=t)
    x ^= t
    return x


def _streams(samples: Tensor, keys: Sequence[int]) -> Words:
    """[B, keys]: where each sample's stream of each key begins."""
    named = np.array([key & 0xFFFFFFFFFFFFFFFF for key in keys], dtype=np.uint64)
    return _mix(samples.numpy().view(np.uint64)[:, None] * _GAMMA + named)


@lru_cache(maxsize=256)
def _counters(first: int, end: int) -> Words:
    """At most _BLOCK words, which draws of the same size share."""
    return np.arange(first + 1, end + 1, dtype=np.uint64) * _GAMMA


@lru_cache(maxsize=64)
def _places(words: tuple[int, ...]) -> tuple[NDArray[np.intp], Words]:
    """Of the words of several names, one behind the other: whose each is, and its counter."""
    names = np.repeat(np.arange(len(words)), words)
    return names, np.concatenate([_counters(0, count) for count in words])


def _blocks(rows: int, words: int) -> Iterator[tuple[slice, int, int]]:
    """Rows, and the first and the end of their words."""
    if rows * words <= _BLOCK:
        yield slice(None), 0, words
        return
    high = max(1, _BLOCK // words)
    for row in range(0, rows, high):
        for first in range(0, words, _BLOCK):
            yield slice(row, row + high), first, min(first + _BLOCK, words)


def _polar(bits: Words) -> tuple[Floats, Floats, Floats]:
    """Radius, cosine and sine of what Box and Muller make of each word."""
    halves = bits.view(np.uint32).reshape(*bits.shape, 2)
    far = (halves[:, :, _HIGH] >> 8).view(np.int32).astype(np.float32)
    far += 1.0
    far *= _UNIT
    turn = (halves[:, :, _LOW] & 0xFFFFFF).view(np.int32).astype(np.float32)
    turn *= _TURN
    radius, angle = torch.from_numpy(far), torch.from_numpy(turn)
    radius.log_()
    far *= -2.0
    radius.sqrt_()  # torch's, which is not always the nearest
    cosine: Floats = angle.cos().numpy()
    angle.sin_()
    return far, cosine, turn


def _spread(radius: Floats, cosine: Floats, sine: Floats, near: Floats, beside: Floats) -> None:
    """A word's two numbers; of an odd count the last word gives one."""
    np.multiply(radius, cosine, out=near)
    width = beside.shape[1]
    np.multiply(radius[:, :width], sine[:, :width], out=beside)


def draw(samples: Tensor, key: int, kind: int, count: int, high: int = 1) -> Tensor:
    """[B, count] of samples' (int64 [B], on a processor) own streams, as noise.py says: int64 of BITS and of INTEGERS below `high`,
    float32 of UNIFORM and NORMAL."""
    dtype = torch.float32 if kind in (UNIFORM, NORMAL) else torch.int64
    drawn = torch.empty(len(samples), count, dtype=dtype, device="cpu")
    words = (count + 1) // 2 if kind == NORMAL else count
    if not drawn.numel():
        return drawn
    stream = _streams(samples, [key])
    out = drawn.numpy()
    for rows, first, end in _blocks(len(samples), words):
        bits = _mix(stream[rows] + _counters(first, end))
        if kind == NORMAL:
            _spread(*_polar(bits), out[rows, first:end], out[rows, words + first : words + end])
        elif kind == UNIFORM:
            np.multiply((bits >> _S40).view(np.int64), np.float32(_UNIT), out=out[rows, first:end], dtype=np.float32, casting="unsafe")
        elif kind == INTEGERS:
            np.remainder(bits >> _S24, np.uint64(high), out=out[rows, first:end].view(np.uint64))
        else:
            out[rows, first:end] = bits.view(np.int64)
    return drawn


def normals(samples: Tensor, keys: Sequence[int], counts: Sequence[int]) -> list[Tensor]:
    """What `draw` gives as NORMAL for each key and count; few numbers of many names cost what as many of one do."""
    words = {number: (count + 1) // 2 for number, count in enumerate(counts) if 0 < count <= _FEW}  # of those with few
    drawn = [
        torch.empty(len(samples), count, dtype=torch.float32, device="cpu") if number in words else draw(samples, key, NORMAL, count)
        for number, (key, count) in enumerate(zip(keys, counts, strict=True))
    ]
    if not words:
        return drawn
    streams, (names, counters) = _streams(samples, [keys[number] for number in words]), _places(tuple(words.values()))
    high = max(1, _BLOCK // len(names))
    for row in range(0, len(samples), high):
        bits = np.take(streams[row : row + high], names, axis=1)
        bits += counters
        parts, first = _polar(_mix(bits)), 0
        for number, count in words.items():
            radius, cosine, sine = (part[:, first : first + count] for part in parts)
            out = drawn[number].numpy()[row : row + high]
            _spread(radius, cosine, sine, out[:, :count], out[:, count:])
            first += count
    return drawn
