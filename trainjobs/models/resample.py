"""Twice or half the resolution without aliases: a filter [1, 3, 3, 1] / 8 in both directions, before every other place is left out, and
after zeros were put between places.

Zhang, "Making convolutional networks shift-invariant again", 2019 (arXiv 1904.11486), as Karras et al. have it in StyleGAN2. By torch's own
convolutions, one channel at a time, so there is a derivative of a derivative on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
FILTER = [[down * across for across in TAPS] for down in TAPS]


def kernel(like_BCHW: Tensor, gain: float) -> Tensor:
    """float [C, 1, 4, 4], one filter for each channel, whose elements sum to `gain`."""
    rows = [[gain * value for value in row] for row in FILTER]
    return torch.tensor(rows, dtype=like_BCHW.dtype, device=like_BCHW.device).expand(like_BCHW.shape[1], 1, 4, 4)


def blurred(x_BCHW: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """float [B, C, H + 2 padding - 3, ...], with zeros around."""
    return F.conv2d(x_BCHW, kernel(x_BCHW, gain), padding=padding, groups=x_BCHW.shape[1])


def doubled(x_BCHW: Tensor) -> Tensor:
    """float [B, C, 2 H, 2 W]. The gain of 4 is for the zeros in between."""
    return F.conv_transpose2d(x_BCHW, kernel(x_BCHW, 4.0), stride=2, padding=1, groups=x_BCHW.shape[1])


def halved(x_BCHW: Tensor) -> Tensor:
    """float [B, C, H / 2, W / 2]."""
    return F.conv2d(x_BCHW, kernel(x_BCHW, 1.0), stride=2, padding=1, groups=x_BCHW.shape[1])
