"""A small UNet that denoises images, after Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", 2020 (arXiv 2006.11239,
appendix B).

Residual blocks with group normalisation and SiLU; the timestep enters each of them through sinusoidal features (Vaswani et al., 2017)
and a two-layer network; `blocks` of them per resolution on the way down, one more on the way up, where the maps of the way down are
concatenated; self-attention in every block of the lowest resolution, or of chosen ones; strided convolution to halve, nearest neighbours
and a convolution to double. A class, or a text, is added to the time's embedding, and a text attended to after each self-attention
(condition.py).

Initialisation: PyTorch's own, but zero for the last convolution of each residual block, the output of each attention, and the last
convolution of the network (as Ho et al.): every block starts as the identity, and the network starts by predicting 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.denoiser import Conditioning
from trainjobs.models.condition import CrossAttention, Told, condition


def normalization(channels: int) -> nn.GroupNorm:
    """Group normalisation with the most groups, up to 32, that divide the channels and hold at least four of them each."""
    return nn.GroupNorm(max((g for g in range(1, 33) if channels % g == 0 and 4 * g <= channels), default=1), channels)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def timestep_features(t_B: Tensor, dimension: int) -> Tensor:
    """float32 [B, dimension]: cosines, then sines, of t at frequencies from 1 down to 1/10000. `dimension` is even."""
    half = dimension // 2
    frequencies = torch.exp(torch.arange(half, device=t_B.device, dtype=torch.float32) * (-math.log(10000.0) / half))
    angle = t_B.to(torch.float32)[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class ResidualBlock(nn.Module):
    """x + f(x, time), with a 1 x 1 convolution on the shortcut where the widths differ."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.norm1 = normalization(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.norm2 = normalization(outputs)
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x_BCHW)))
        h = h + self.time(time_BE)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        shortcut: Tensor = self.shortcut(x_BCHW)
        return shortcut + h


class Attention(nn.Module):
    """x + self-attention over the pixels, in heads of 64 channels where that divides them, else one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 64 if channels % 64 == 0 else 1
        self.norm = normalization(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        B, C, H, W = x_BCHW.shape
        qkv_BNDL = self.qkv(self.norm(x_BCHW)).view(B, 3 * self.heads, C // self.heads, H * W)
        q, k, v = qkv_BNDL.transpose(2, 3).chunk(3, dim=1)
        h_BNLD = F.scaled_dot_product_attention(q, k, v)
        h: Tensor = self.out(h_BNLD.transpose(2, 3).reshape(B, C, H, W))
        return x_BCHW + h


class TextAttention(nn.Module):
    """x + attention of the pixels to the states of a text, in heads as Attention has them."""

    def __init__(self, channels: int, states: int) -> None:
        super().__init__()
        self.norm = normalization(channels)
        self.cross = CrossAttention(channels, states, channels // 64 if channels % 64 == 0 else 1)

    def forward(self, x_BCHW: Tensor, told: Told) -> Tensor:
        h: Tensor = self.cross(self.norm(x_BCHW).flatten(2).transpose(1, 2), told)
        return x_BCHW + h.transpose(1, 2).reshape(x_BCHW.shape)


class Block(nn.Module):
    """A residual block, and attention after it where asked for: to itself, then to a text of such states."""

    RECOMPUTES = True  # with training.gradientCheckpointing (recomputing.py)

    def __init__(self, inputs: int, outputs: int, time: int, attention: bool, states: int | None = None) -> None:
        super().__init__()
        self.residual = ResidualBlock(inputs, outputs, time)
        self.attention = Attention(outputs) if attention else nn.Identity()
        self.text = TextAttention(outputs, states) if attention and states is not None else None

    def forward(self, x_BCHW: Tensor, time_BE: Tensor, told: Told | None = None) -> Tensor:
        h: Tensor = self.attention(self.residual(x_BCHW, time_BE))
        return h if self.text is None else self.text(h, told)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h: Tensor = self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))
        return h


class UNet(nn.Module):
    """(float [B, C, H, W], int64 or float [B] times, what it is conditioned on) -> float32 [B, C, H, W], or of `outputs` channels. H and W
    are divisible by 2 ** (len(multipliers) - 1). `levels` are those that attend, 0 the finest; by default the lowest."""

    def __init__(
        self,
        *,
        image_channels: int,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: bool,
        outputs: int | None = None,
        levels: Collection[int] = (),
        conditioning: Conditioning | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        lowest = len(widths) - 1
        attending = (set(levels) or {lowest}) if attention else set()
        states = conditioning.width if conditioning is not None and conditioning.type == "text" else None
        time = 4 * channels
        self.features = max(channels - channels % 2, 8)
        self.time = nn.Sequential(nn.Linear(self.features, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)

        self.down = nn.ModuleList()
        skips = [channels]
        width = channels
        for level, wide in enumerate(widths):
            for _ in range(blocks):
                self.down.append(Block(width, wide, time, level in attending, states))
                width = wide
                skips.append(width)
            if level < lowest:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)

        self.middle = nn.ModuleList([Block(width, width, time, attention, states), Block(width, width, time, False)])

        self.up = nn.ModuleList()
        for level, wide in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(Block(width + skips.pop(), wide, time, level in attending, states))
                width = wide
            if level > 0:
                self.up.append(Upsample(width))
        self.norm = normalization(width)
        self.last = zero(nn.Conv2d(width, image_channels if outputs is None else outputs, 3, padding=1))
        self.condition = condition(conditioning, classes, time)

    def forward(self, x_BCHW: Tensor, t_B: Tensor, given: Tensor | None = None) -> Tensor:
        features, told = timestep_features(t_B, self.features), None
        if self.condition is None:
            time_BE = self.time(features)
        else:  # what is added stands in front of the last SiLU
            told = self.condition(given)
            time_BE = self.time[3](self.time[2](self.time[1](self.time[0](features))) + told.whole)
        h: Tensor = self.first(x_BCHW)
        skips = [h]
        for layer in self.down:
            h = layer(h, time_BE, told) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, time_BE, told)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), time_BE, told) if isinstance(layer, Block) else layer(h)
        output: Tensor = self.last(F.silu(self.norm(h)))
        return output.float()
