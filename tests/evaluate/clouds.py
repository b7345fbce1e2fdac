"""Features, real and generated, that scores are tried on: by counter, so that they are the same wherever the tables beside were made."""

from __future__ import annotations

import torch
from torch import Tensor

from trainjobs.noise import Noise

# (real rows, generated rows, features, shift of the generated, their scale)
CLOUDS = {
    "near": (400, 400, 8, 0.1, 1.0),
    "far": (300, 500, 16, 1.5, 0.7),
    "collapsed": (256, 256, 32, 0.0, 0.05),
    "few": (24, 24, 32, 0.3, 1.2),  # fewer than features
    "many": (1500, 1200, 4, 0.2, 0.9),
}


def cloud(name: str) -> tuple[Tensor, Tensor]:
    """(float32 [N, F], [M, F]), correlated."""
    real, made, wide, shift, scale = CLOUDS[name]
    mix = Noise(7, torch.arange(wide)).normal(f"{name} mix", wide) / wide**0.5
    x = Noise(7, torch.arange(real)).normal(f"{name} real", wide)
    y = Noise(7, torch.arange(made)).normal(f"{name} made", wide)
    return x @ mix, (scale * y) @ mix + shift


def logits(name: str) -> Tensor:
    """float32 [M, 10]: a classifier's outputs for the generated ones."""
    return 2.0 * Noise(7, torch.arange(CLOUDS[name][1])).normal(f"{name} logits", 10)
