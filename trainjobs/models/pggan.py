"""PGGAN: a generator and a discriminator that grow, from small images to large ones.

Karras et al., "Progressive growing of GANs for improved quality, stability, and variation", 2018 (arXiv 1710.10196; layers: table 2).

rates          equalised: weights N(0, 1), scaled at run time by sqrt(2 / inputs) (section 4.1); LeakyReLU of 0.2
pixel norm     of latents, and behind each convolution of the generator (section 4.2)
fade           out = (1 - alpha) up(colours of before) + alpha colours of now; the discriminator mixes what it makes of the image and
               of half of it alike (figure 2). Up: each pixel four times; down: the mean of four

A network is asked for one level: 4 x 4 pixels are level 0, twice as many the next. Layers above it are not computed. The layers from and to
colours are there from the level on at which growing starts, as no other is ever looked at. Widths as stylegan2's.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.models.deviation import MinibatchDeviation
from trainjobs.models.equalized import Convolution, Linear, unit_length
from trainjobs.models.stylegan2 import widths

GAIN = math.sqrt(2.0)


def active(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class Doubling(nn.Module):
    """float [B, inputs, H, W] -> float [B, outputs, 2 H, 2 W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Convolution(inputs, outputs, 3, gain=GAIN), Convolution(outputs, outputs, 3, gain=GAIN)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return unit_length(active(self.second(unit_length(active(self.first(up(x_BCHW)))))))


class Generator(nn.Module):
    """float [B, latent_dim] -> float [B, image_channels, size, size], unbounded; of a `level` below the highest, smaller images. `start` is
    the lowest level that is ever asked for."""

    def __init__(self, *, latent_dim: int, channels: int, size: int, image_channels: int, start: int | None = None) -> None:
        super().__init__()
        wide = widths(size, channels)
        self.top = len(wide) - 1
        self.lowest = self.top if start is None else start
        self.first = Convolution(latent_dim, wide[0], 4, gain=GAIN, padding=3)
        self.second = Convolution(wide[0], wide[0], 3, gain=GAIN)
        self.blocks = nn.ModuleList(Doubling(inner, outer) for inner, outer in pairwise(wide))
        self.colours = nn.ModuleList(Convolution(width, image_channels, 1) for width in wide[self.lowest :])

    def forward(self, z_BZ: Tensor, level: int | None = None, alpha: float = 1.0) -> Tensor:
        level = self.top if level is None else level
        x_BCHW = unit_length(active(self.first(unit_length(z_BZ)[:, :, None, None])))
        x_BCHW = unit_length(active(self.second(x_BCHW)))
        before_BCHW = x_BCHW
        for block in self.blocks[:level]:
            before_BCHW, x_BCHW = x_BCHW, block(x_BCHW)
        image: Tensor = self.colours[level - self.lowest](x_BCHW)
        if alpha < 1.0:
            image = torch.lerp(up(self.colours[level - 1 - self.lowest](before_BCHW)), image, alpha)
        return image + nothing(self.colours, level - self.lowest - (alpha < 1.0), image)

    def of_level(self, level: int) -> list[nn.Parameter]:
        """The parameters that come with a level; of the lowest, all that it needs."""
        parts: list[nn.Module] = [self.colours[level - self.lowest]]
        parts += [self.first, self.second, *self.blocks[:level]] if level == self.lowest else [self.blocks[level - 1]]
        return [parameter for part in parts for parameter in part.parameters()]


class Halving(nn.Module):
    """float [B, inputs, H, W] -> float [B, outputs, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Convolution(inputs, inputs, 3, gain=GAIN), Convolution(inputs, outputs, 3, gain=GAIN)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return down(active(self.second(active(self.first(x_BCHW)))))


class Discriminator(nn.Module):
    """float [B, image_channels, s, s] -> float [B], for s of any level from `start` on: unbounded scores, high for real samples. With a
    `group`, the last layers also see how much so many consecutive samples differ, and B is a multiple of it."""

    def __init__(self, *, channels: int, size: int, image_channels: int, group: int | None = None, start: int | None = None) -> None:
        super().__init__()
        wide = widths(size, channels)
        self.lowest = len(wide) - 1 if start is None else start
        self.colours = nn.ModuleList(Convolution(image_channels, width, 1, gain=GAIN) for width in wide[self.lowest :])
        self.blocks = nn.ModuleList(Halving(outer, inner) for inner, outer in pairwise(wide))
        self.deviation = MinibatchDeviation(group) if group else nn.Identity()
        self.first = Convolution(wide[0] + bool(group), wide[0], 3, gain=GAIN)
        self.second = Convolution(wide[0], wide[0], 4, gain=GAIN, padding=0)
        self.score = Linear(wide[0], 1)

    def forward(self, image_BCHW: Tensor, alpha: float = 1.0) -> Tensor:
        level = image_BCHW.shape[-1].bit_length() - 3
        x_BCHW: Tensor = active(self.colours[level - self.lowest](image_BCHW))
        for number in reversed(range(level)):
            x_BCHW = self.blocks[number](x_BCHW)
            if alpha < 1.0 and number == level - 1:
                x_BCHW = torch.lerp(active(self.colours[number - self.lowest](down(image_BCHW))), x_BCHW, alpha)
        x_BCHW = active(self.second(active(self.first(self.deviation(x_BCHW)))))
        score: Tensor = self.score(x_BCHW.flatten(1)).flatten()
        return score + nothing(self.colours, level - self.lowest - (alpha < 1.0), score)

    def of_level(self, level: int) -> list[nn.Parameter]:
        """As the generator's."""
        parts: list[nn.Module] = [self.colours[level - self.lowest]]
        rest = [*self.blocks[:level], self.first, self.second, self.score]
        parts += rest if level == self.lowest else [self.blocks[level - 1]]
        return [parameter for part in parts for parameter in part.parameters()]


def nothing(colours: nn.ModuleList, used: int, like: Tensor) -> Tensor:
    """0, of the layers that are no longer looked at. Of nothing they would have no gradient, which torch's Adam passes over, and ZeRO takes
    for 0; with 0 of them it is 0 everywhere."""
    zero = torch.zeros((), dtype=like.dtype, device=like.device)
    for layer in colours[:used]:
        for parameter in layer.parameters():
            zero = zero + 0.0 * parameter.sum().to(like.dtype)
    return zero


def up(x_BCHW: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")


def down(x_BCHW: Tensor) -> Tensor:
    """The mean of each four pixels."""
    return F.avg_pool2d(x_BCHW, 2)
