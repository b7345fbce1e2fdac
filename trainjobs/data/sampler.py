"""The order of the data: a pure function of the seed and of the number of samples seen.

Nothing is saved to resume, and it does not matter how the global batch is cut into workers and micro-batches. Permutations sort hashes
(see trainjobs/noise.py) instead of calling torch.randperm, whose results may change with torch's version.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from trainjobs.noise import Noise, mix


def _permutation(length: int, *seed: int | str) -> Tensor:
    """int64 [length]: a permutation of 0..length-1."""
    keys = Noise(mix(*seed), torch.arange(length)).bits("order", 1)[:, 0]
    return keys.argsort(stable=True)


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, length: int) -> Tensor:
    # Every step of an epoch reads the same permutation. The result is never handed out itself, so nobody can change it.
    return _permutation(length, "epoch", seed, epoch)


def order(positions: Tensor, seed: int, length: int) -> Tensor:
    """int64 [B]: the samples at these positions (int64 [B], on the CPU) of the endless stream of data.

    Epoch e, positions e * length..(e + 1) * length - 1, holds every sample once, permuted by (seed, e). A batch may span epochs.
    """
    epochs = positions.div(length, rounding_mode="floor")
    within = positions - epochs * length
    found = torch.empty_like(positions)
    for epoch in torch.unique(epochs).tolist():
        here = epochs == epoch
        found[here] = _epoch(seed, epoch, length)[within[here]]
    return found


def split(samples: int, heldout: int) -> tuple[Tensor, Tensor]:
    """(int64 [samples - heldout], int64 [heldout]): which samples are trained on and which are held out, each ascending.

    Chosen by a hash of the sample's number alone: every seed holds out the same ones, and a data set sorted by class loses some of each.
    """
    permutation = _permutation(samples, "holdout")
    return permutation[heldout:].sort().values, permutation[:heldout].sort().values
