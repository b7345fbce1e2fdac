"""SAGAN: residual blocks with spectral norm on every layer of both networks, and self-attention.

Zhang et al., "Self-attention generative adversarial networks", 2019 (arXiv 1805.08318): the residual networks of Miyato and Koyama, "cGANs
with projection discriminator", 2018 (arXiv 1802.05637, figure 14 and tables 3 to 5), without their last pooling of attention.

generator       z -> linear -> 4 x 4; blocks that double: (norm ReLU up conv norm ReLU conv) + (up conv of 1 x 1); norm ReLU conv tanh
discriminator   blocks that halve: (ReLU conv ReLU conv mean) + (conv of 1 x 1, mean), the first without its first ReLU and with the mean in
                front on the short way; one that does not; ReLU, a sum over places, a linear layer, and the projection on the class

All convolutions are of 3 x 3 but those named; norm is batch norm, with `classes` a conditional one. Xavier's uniform weights, biases 0.
Widths: `channels` feature maps at the full resolution, twice as many at each lower one, at most 16 times as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.models.deviation import MinibatchDeviation
from trainjobs.models.normalization import BatchNorm, ConditionalBatchNorm, normalized
from trainjobs.models.projection import Projection
from trainjobs.models.self_attention import SelfAttention

_WIDEST = 16
ATTENDS = 32  # pixels, where the images are larger


def widths(size: int, channels: int) -> list[int]:
    """Feature maps at 4, 8, ..., `size` pixels; `size` is a power of two, at least 8."""
    return [channels * min(size >> level, _WIDEST) for level in range(2, size.bit_length())]


def attended(size: int, attention: Sequence[int]) -> Sequence[int]:
    """At which resolutions there is attention, by default."""
    return attention or [min(ATTENDS, size // 2)]


def initialize(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def norm(channels: int, classes: int, *, batch: bool) -> nn.Module:
    own = ConditionalBatchNorm(channels, classes) if classes else BatchNorm(channels)
    return own if batch else nn.Identity()


class Doubling(nn.Module):
    """float [B, inputs, H, W] and the class of each -> float [B, outputs, 2 H, 2 W]."""

    def __init__(self, inputs: int, outputs: int, classes: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(inputs, classes, batch=batch_norm), norm(outputs, classes, batch=batch_norm)
        self.first, self.second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor, *label: Tensor) -> Tensor:
        h_BCHW: Tensor = self.first(_up(F.relu(self.norm1(x_BCHW, *label))))
        h_BCHW = self.second(F.relu(self.norm2(h_BCHW, *label)))
        skipped: Tensor = self.skip(_up(x_BCHW))
        return h_BCHW + skipped


class Generator(nn.Module):
    """float [B, latent_dim] -> float [B, image_channels, size, size] in [-1, 1]. With `classes` it takes int64 [B], too: the class that
    each is to be of."""

    def __init__(
        self,
        *,
        latent_dim: int,
        channels: int,
        size: int,
        image_channels: int,
        attention: Sequence[int] = (),
        classes: int = 0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        wide, places = widths(size, channels), attended(size, attention)
        self.start = nn.Linear(latent_dim, wide[0] * 16)
        self.attention = nn.ModuleDict({str(4 << level): SelfAttention(width) for level, width in enumerate(wide) if 4 << level in places})
        self.blocks = nn.ModuleList(Doubling(inner, outer, classes, batch_norm=batch_norm) for inner, outer in pairwise(wide))
        self.norm = norm(wide[-1], classes, batch=batch_norm)
        self.last = nn.Conv2d(wide[-1], image_channels, 3, padding=1)
        initialize(self)
        normalized(self)

    def forward(self, z_BZ: Tensor, *label: Tensor) -> Tensor:
        x_BCHW = _attend(self.attention, self.start(z_BZ).view(len(z_BZ), -1, 4, 4))
        for block in self.blocks:
            x_BCHW = _attend(self.attention, block(x_BCHW, *label))
        image: Tensor = self.last(F.relu(self.norm(x_BCHW, *label)))
        return torch.tanh(image)


class Halving(nn.Module):
    """float [B, inputs, H, W] -> float [B, outputs, H / 2, W / 2], or of the same size without `halves`. The `first` sees the image."""

    def __init__(self, inputs: int, outputs: int, *, halves: bool = True, first: bool = False) -> None:
        super().__init__()
        self.halves, self.is_first = halves, first
        self.first, self.second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if halves or inputs != outputs else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW: Tensor = self.second(F.relu(self.first(x_BCHW if self.is_first else F.relu(x_BCHW))))
        if not self.halves:
            same: Tensor = self.skip(x_BCHW)
            return h_BCHW + same
        skipped: Tensor = self.skip(_down(x_BCHW)) if self.is_first else _down(self.skip(x_BCHW))
        return _down(h_BCHW) + skipped


class Discriminator(nn.Module):
    """float [B, image_channels, size, size] -> float [B]: unbounded scores, high for real samples. With `classes` it takes int64 [B], too;
    with a `group`, the last block also sees how much so many consecutive samples differ, and B is a multiple of it."""

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        image_channels: int,
        attention: Sequence[int] = (),
        group: int | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        wide, places = widths(size // 2, channels)[::-1], attended(size, attention)
        self.attention = nn.ModuleDict(
            {str(size >> level): SelfAttention(width) for level, width in enumerate(wide, start=1) if size >> level in places}
        )
        self.blocks = nn.ModuleList([Halving(image_channels, wide[0], first=True)])
        self.blocks.extend(Halving(outer, inner) for outer, inner in pairwise(wide))
        self.deviation = MinibatchDeviation(group) if group else nn.Identity()
        self.deepest = Halving(wide[-1] + bool(group), wide[-1], halves=False)
        self.score = nn.Linear(wide[-1], 1)
        initialize(self)
        normalized(self)
        self.projection = Projection(classes, wide[-1], spectral=True) if classes else None

    def forward(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x_BCHW = _attend(self.attention, block(x_BCHW))
        features_BF = F.relu(self.deepest(self.deviation(x_BCHW))).sum(dim=(2, 3))
        score: Tensor = self.score(features_BF).flatten()
        if self.projection is None:
            return score
        assert label_B is not None
        projected: Tensor = self.projection(features_BF, label_B)
        return score + projected


def _attend(attention: nn.ModuleDict, x_BCHW: Tensor) -> Tensor:
    size = str(x_BCHW.shape[-1])
    found: Tensor = attention[size](x_BCHW) if size in attention else x_BCHW
    return found


def _up(x_BCHW: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")


def _down(x_BCHW: Tensor) -> Tensor:
    """The mean of each four pixels."""
    return F.avg_pool2d(x_BCHW, 2)
