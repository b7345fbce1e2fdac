"""Layers with equalised learning rates: weights ~ N(0, 1), scaled by He's constant whenever they are used.

    y = (g w / sqrt(n)) x + g b,    n the inputs of one output

so that Adam, whose steps do not know the size of a gradient, moves every layer as fast: Karras et al., "Progressive growing of GANs", 2018
(arXiv 1710.10196, section 4.1). g is a rate of the layer's own: weights begin as N(0, 1 / g^2), and move g times as fast in effect. For
StyleGAN2's mapping network it is 0.01. `leaky` is its activation, which keeps the size of what passes through.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """float [B, inputs] -> float [B, outputs]."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x_BI: Tensor) -> Tensor:
        return F.linear(x_BI, self.weight * self.scale, self.bias * self.rate)


class Convolution(nn.Module):
    """float [B, inputs, H, W] -> float [B, outputs, H', W'], with a kernel of `size` and stride 1; padding keeps the size of maps, unless
    it is given."""

    def __init__(self, inputs: int, outputs: int, size: int, *, bias: bool = True, padding: int | None = None, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs * size**2)
        self.padding = size // 2 if padding is None else padding

    def forward(self, x_BIHW: Tensor, *, stride: int = 1, padding: int | None = None) -> Tensor:
        return F.conv2d(x_BIHW, self.weight * self.scale, self.bias, stride=stride, padding=self.padding if padding is None else padding)


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU(0.2) times sqrt(2)."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2.0)


def unit_length(x: Tensor) -> Tensor:
    """Features (dimension 1) divided by the root of their mean square + 1e-8, which is at least float32: pixel norm, of maps or latents."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (wide.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()).to(x.dtype)
