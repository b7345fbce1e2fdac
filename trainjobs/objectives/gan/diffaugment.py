"""DiffAugment: what the discriminator sees, real or generated, is augmented by operations through which gradients flow to the generator.

    color        x + b, b ~ U(-1/2, 1/2);  then x <- m + s (x - m), s ~ U(0, 2), m the mean over channels;  then x <- m + c (x - m),
                 c ~ U(1/2, 3/2), m the mean over the whole picture
    translation  by a whole number of pixels ~ U{-S/8, ..., S/8} in each direction, 0 (grey) where nothing was
    cutout       a square of half the size, its centre anywhere in the picture, is 0

Zhao, Liu, Lin, Zhu and Han, "Differentiable augmentation for data-efficient GAN training", 2020 (arXiv 2006.10738, section 3.2; the
figures are those of the authors' code). Pixels are in [-1, 1], and may leave that range. Each sample has its own numbers, from its noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainjobs.noise import Noise
from trainjobs.objectives.gan.gradient_penalty import wide


def diffaugment(x_BCHW: Tensor, policy: Sequence[str], noise: Noise, name: str) -> Tensor:
    """float [B, C, H, W], at least float32; the parts of the policy one after the other, with randomness of that name."""
    x_BCHW = wide(x_BCHW)
    for part in policy:
        x_BCHW = POLICIES[part](x_BCHW, noise, f"{name}.{part}")
    return x_BCHW


def color(x_BCHW: Tensor, noise: Noise, name: str) -> Tensor:
    brightness, saturation, contrast = noise.uniform(name, 3)[:, :, None, None, None].unbind(dim=1)
    x_BCHW = x_BCHW + (brightness - 0.5)
    grey = x_BCHW.mean(dim=1, keepdim=True)
    x_BCHW = grey + 2.0 * saturation * (x_BCHW - grey)
    mean = x_BCHW.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (0.5 + contrast) * (x_BCHW - mean)


def translation(x_BCHW: Tensor, noise: Noise, name: str) -> Tensor:
    for axis, direction in ((2, "down"), (3, "across")):
        size = x_BCHW.shape[axis]
        most = part_of(size, 0.125)
        by_B = noise.integers(f"{name}.{direction}", 2 * most + 1) - most
        x_BCHW = moved(x_BCHW, by_B, axis)
    return x_BCHW


def moved(x_BCHW: Tensor, by_B: Tensor, axis: int) -> Tensor:
    """Each sample so many pixels towards the beginning of an axis."""
    size = x_BCHW.shape[axis]
    from_BS = torch.arange(size, device=x_BCHW.device) + by_B.view(-1, 1)
    shape = (len(x_BCHW), 1, size, 1) if axis == 2 else (len(x_BCHW), 1, 1, size)
    inside = ((from_BS >= 0) & (from_BS < size)).view(shape)
    return x_BCHW.gather(axis, from_BS.clamp(0, size - 1).view(shape).expand_as(x_BCHW)) * inside


def cutout(x_BCHW: Tensor, noise: Noise, name: str) -> Tensor:
    inside = []
    for axis, direction in ((2, "down"), (3, "across")):
        size = x_BCHW.shape[axis]
        length = part_of(size, 0.5)
        start_B1 = noise.integers(f"{name}.{direction}", size + 1 - length % 2).view(-1, 1) - length // 2
        place_S = torch.arange(size, device=x_BCHW.device)
        inside.append((place_S >= start_B1) & (place_S < start_B1 + length))
    rows_BH, columns_BW = inside
    return x_BCHW * ~(rows_BH[:, None, :, None] & columns_BW[:, None, None, :])


def part_of(size: int, share: float) -> int:
    """In whole pixels, rounded."""
    return int(size * share + 0.5)


POLICIES: dict[str, Callable[[Tensor, Noise, str], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}
