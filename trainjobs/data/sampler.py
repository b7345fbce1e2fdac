"""The order of the data: a pure function of the seed and of the number of samples seen.

Nothing is saved to resume, and it does not matter how the global batch is cut into workers and micro-batches. Permutations sort hashes
(see trainjobs/noise.py) instead of calling torch.randperm, whose results may change with torch's version.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from trainjobs.noise import Noise, mix

_CHUNK = 2**20  # hashes at a time, each of which takes a dozen numbers while it is made


def permutation(length: int, *seed: int | str) -> Tensor:
    """int64 [length]: a permutation of 0..length-1."""
    key = mix(*seed)
    numbers = torch.arange(length)
    keys = [Noise(key, numbers[start : start + _CHUNK]).bits("order", 1)[:, 0] for start in range(0, length, _CHUNK)]
    return torch.cat(keys or [numbers]).argsort(stable=True)


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, length: int) -> Tensor:
    # Every step of an epoch reads the same permutation. The result is never handed out itself, so nobody can change it.
    return permutation(length, "epoch", seed, epoch).to(torch.int32 if length < 2**31 else torch.int64)


def order(positions: Tensor, seed: int, length: int) -> Tensor:
    """int64 [B]: the samples at these positions (int64 [B], on the CPU) of the endless stream of data.

    Epoch e, positions e * length..(e + 1) * length - 1, holds every sample once, permuted by (seed, e). A batch may span epochs.
    """
    numbers = positions.tolist()
    if numbers and (epoch := min(numbers) // length) == max(numbers) // length:  # as nearly always; the rest is three times the operations
        shuffled, first = _epoch(seed, epoch, length), numbers[0] - epoch * length
        if numbers == list(range(numbers[0], numbers[0] + len(numbers))):  # as a step asks: a slice of it
            return shuffled[first : first + len(numbers)].to(torch.int64, copy=True)
        return shuffled[positions - epoch * length].long()
    epochs = positions.div(length, rounding_mode="floor")
    within = positions - epochs * length
    found = torch.empty_like(positions)
    for epoch in torch.unique(epochs).tolist():
        here = epochs == epoch
        found[here] = _epoch(seed, epoch, length)[within[here]].long()
    return found


def split(samples: int, heldout: int) -> tuple[Tensor, Tensor]:
    """(int64 [samples - heldout], int64 [heldout]): which samples are trained on and which are held out, each ascending.

    Chosen by a hash of the sample's number alone: every seed holds out the same ones, and a data set sorted by class loses some of each.
    """
    shuffled = permutation(samples, "holdout")
    return shuffled[heldout:].sort().values, shuffled[:heldout].sort().values
