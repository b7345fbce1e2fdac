"""Positions in the stream of data that show the samples a test wants to see."""

from __future__ import annotations

import torch
from torch import Tensor

from trainjobs.data.sampler import order
from trainjobs.data.source import Source

SEED = 0


def shown(source: Source, indices: Tensor) -> Tensor:
    """Where, in the first epoch, training samples number `indices` (int64 [B]) are: source.batch(shown(source, indices), SEED, noise)."""
    length = source.info.length
    return order(torch.arange(length), SEED, length).argsort()[indices]
