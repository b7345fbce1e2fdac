"""A transformer over patches that denoises images: Peebles and Xie, "Scalable diffusion models with transformers", 2023 (arXiv 2212.09748).

Patches by a strided convolution, plus fixed sines and cosines of their places in two dimensions; then layers

    x <- x + g1 attention(n(x) (1 + a1) + b1),   x <- x + g2 mlp(n(x) (1 + a2) + b2),   n: layer norm without weights

whose six vectors a, b, g are a linear map of SiLU(time + condition), zero at the start (adaLN-Zero): a layer begins as the identity, and
the network by predicting 0. The states of a text are attended to between the two, without modulation, as Chen et al., "PixArt-alpha", 2024
(arXiv 2310.00426, section 2.3) have it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.denoiser import Conditioning
from trainjobs.models.condition import CrossAttention, Told, condition, joined, split
from trainjobs.models.unet import timestep_features

_FEATURES = 256  # of the time
_EPSILON = 1e-6


class Layer(nn.Module):
    """(float [B, N, H], [B, H], Told) -> float [B, N, H]."""

    RECOMPUTES = True  # with training.gradientCheckpointing (recomputing.py)

    def __init__(self, hidden: int, heads: int, states: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = zeroed(nn.Linear(hidden, 6 * hidden))
        self.qkv, self.out = xavier(nn.Linear(hidden, 3 * hidden)), xavier(nn.Linear(hidden, hidden))
        self.up, self.down = xavier(nn.Linear(hidden, 4 * hidden)), xavier(nn.Linear(4 * hidden, hidden))
        self.text = None if states is None else CrossAttention(hidden, states, heads)

    def forward(self, x: Tensor, time_BH: Tensor, told: Told | None) -> Tensor:
        b1, a1, g1, b2, a2, g2 = self.modulation(F.silu(time_BH))[:, None].chunk(6, dim=-1)
        q, k, v = (split(part, self.heads) for part in self.qkv(modulated(x, a1, b1)).chunk(3, dim=-1))
        x = x + g1 * self.out(joined(F.scaled_dot_product_attention(q, k, v)))
        if self.text is not None:
            x = x + self.text(x, told)
        h: Tensor = x + g2 * self.down(F.gelu(self.up(modulated(x, a2, b2)), approximate="tanh"))
        return h


class DiT(nn.Module):
    """(float [B, C, H, W], int64 or float [B] times, what it is conditioned on) -> float32 [B, outputs, H, W]. `size` is that of the
    squares that it draws."""

    def __init__(
        self,
        *,
        image_channels: int,
        size: int,
        hidden: int,
        layers: int,
        heads: int,
        patch: int,
        outputs: int | None = None,
        conditioning: Conditioning | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.patch, self.side = patch, size // patch
        self.outputs = image_channels if outputs is None else outputs
        states = conditioning.width if conditioning is not None and conditioning.type == "text" else None
        self.first = nn.Conv2d(image_channels, hidden, patch, stride=patch)
        nn.init.xavier_uniform_(self.first.weight.data.view(hidden, -1))
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]
        self.time = nn.Sequential(normal(nn.Linear(_FEATURES, hidden)), nn.SiLU(), normal(nn.Linear(hidden, hidden)))
        self.condition = condition(conditioning, classes, hidden)
        self.layers = nn.ModuleList([Layer(hidden, heads, states) for _ in range(layers)])
        self.modulation = zeroed(nn.Linear(hidden, 2 * hidden))
        self.last = zeroed(nn.Linear(hidden, patch * patch * self.outputs))
        self.register_buffer("places", sines(self.side, hidden), persistent=False)

    def forward(self, x_BCSS: Tensor, t_B: Tensor, given: Tensor | None = None) -> Tensor:
        x = self.first(x_BCSS)
        rows, columns = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2) + self.placed(rows, columns)
        time: Tensor = self.time(timestep_features(t_B, _FEATURES))
        told = None
        if self.condition is not None:
            told = self.condition(given)
            time = time + told.whole
        for layer in self.layers:
            x = layer(x, time, told)
        b, a = self.modulation(F.silu(time))[:, None].chunk(2, dim=-1)
        patches = self.last(modulated(x, a, b)).unflatten(1, (rows, columns)).unflatten(-1, (self.patch, self.patch, self.outputs))
        output: Tensor = patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return output.float()

    def placed(self, rows: int, columns: int) -> Tensor:
        """Of patches of a picture of any shape: the same place has the same waves in all of them."""
        places = cast(Tensor, self.places)
        if (rows, columns) == (self.side, self.side):
            return places
        return sines(rows, places.shape[-1], columns).to(places)


def modulated(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=_EPSILON) * (1.0 + a) + b


def sines(side: int, hidden: int, wide: int | None = None) -> Tensor:
    """float32 [side * wide, hidden]: sines, then cosines, of the column at frequencies from 1 down to almost 1/10000; then of the row. A
    square without `wide`."""
    wide = side if wide is None else wide
    frequencies = 10000.0 ** -(torch.arange(hidden // 4, dtype=torch.float64) / (hidden // 4))
    waves = torch.arange(max(side, wide), dtype=torch.float64)[:, None] * frequencies
    waves = torch.cat([waves.sin(), waves.cos()], dim=1)
    columns, rows = waves[:wide].expand(side, -1, -1), waves[:side, None].expand(-1, wide, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1).float()


def zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def normal(layer: nn.Linear) -> nn.Linear:
    nn.init.normal_(layer.weight, std=0.02)
    return layer


def xavier(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
