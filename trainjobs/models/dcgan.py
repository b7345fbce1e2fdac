"""DCGAN: convolutional generator and discriminator of images.

Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial networks", 2016
(arXiv 1511.06434). The generator starts from a 4 x 4 map and doubles the resolution with transposed convolutions of kernel 4 and
stride 2; the discriminator mirrors it with strided convolutions; no pooling and no fully connected layers. ReLU and a final tanh in
the generator, LeakyReLU(0.2) in the discriminator, no normalisation next to the image (section 3 of the paper).

Self-attention (self_attention.py) stands behind the activation of the feature maps of the given sizes.

Widths: `channels` feature maps next to the image, twice as many at each lower resolution, at most 8 times as many (64 to 512 for
64 x 64 pixels, as in the paper's code).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from trainjobs.models.deviation import MinibatchDeviation
from trainjobs.models.normalization import BatchNorm, ConditionalBatchNorm, normalized
from trainjobs.models.projection import Projection
from trainjobs.models.self_attention import SelfAttention

_WIDEST = 8


def widths(size: int, channels: int) -> list[int]:
    """Feature maps at size / 2, size / 4, ..., 4 pixels. `size` is a power of two, at least 8."""
    return [channels * min(2**i, _WIDEST) for i in range(size.bit_length() - 3)]


def initialize(network: nn.Module) -> None:
    """Section 4 of the paper: weights ~ N(0, 0.02). Batch norm's scales ~ N(1, 0.02), as in the authors' code; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BatchNorm) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """float [B, latent_dim] -> float [B, image_channels, size, size] in [-1, 1]. With `classes` it takes int64 [B], too: the class
    that each is to be of, by conditional batch norm."""

    def __init__(
        self,
        *,
        latent_dim: int,
        channels: int,
        size: int,
        image_channels: int,
        batch_norm: bool,
        spectral: bool = False,
        attention: Sequence[int] = (),
        classes: int = 0,
    ) -> None:
        super().__init__()
        wide = widths(size, channels)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, wide[0], 4, bias=not batch_norm)]
        for level, (inner, outer) in enumerate(pairwise(wide)):
            layers += _after(inner, 4 << level, batch_norm, attention, classes)
            layers.append(nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1, bias=not batch_norm))
        layers += _after(wide[-1], size // 2, batch_norm, attention, classes)
        layers += [nn.ConvTranspose2d(wide[-1], image_channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        initialize(self)
        if spectral:  # After the initialisation, because the vectors of the power iteration start from the weights.
            normalized(self)

    def forward(self, z_BZ: Tensor, label_B: Tensor | None = None) -> Tensor:
        image = z_BZ[:, :, None, None]
        for layer in self.layers:
            image = layer(image, label_B) if isinstance(layer, ConditionalBatchNorm) else layer(image)
        return image


def _after(channels: int, size: int, batch_norm: bool, attention: Sequence[int], classes: int) -> list[nn.Module]:
    """What follows on a convolution that gives maps of a size."""
    own = ConditionalBatchNorm(channels, classes) if classes else BatchNorm(channels)
    norm = [own] if batch_norm else []
    return [*norm, nn.ReLU(), *([SelfAttention(channels)] if size in attention else [])]


class Discriminator(nn.Module):
    """float [B, image_channels, size, size] -> float [B]: unbounded scores, high for real samples. With a `group`, the last layer also sees
    how much so many consecutive samples differ, and B is a multiple of it. With `classes` it takes int64 [B], too, the class of each."""

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        image_channels: int,
        batch_norm: bool,
        spectral: bool,
        attention: Sequence[int] = (),
        group: int | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        wide = widths(size, channels)
        layers: list[nn.Module] = [nn.Conv2d(image_channels, wide[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        layers += [SelfAttention(wide[0])] if size // 2 in attention else []
        for level, (outer, inner) in enumerate(pairwise(wide)):
            layers.append(nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=not batch_norm))
            layers += [BatchNorm(inner)] if batch_norm else []
            layers.append(nn.LeakyReLU(0.2))
            layers += [SelfAttention(inner)] if size >> (level + 2) in attention else []
        layers += [MinibatchDeviation(group)] if group else []
        layers.append(nn.Conv2d(wide[-1] + bool(group), 1, 4))
        self.layers = nn.Sequential(*layers)
        initialize(self)
        if spectral:
            normalized(self)
        self.projection = Projection(classes, wide[-1], spectral=spectral) if classes else None
        self.group = group

    def forward(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        if self.projection is None:
            score: Tensor = self.layers(x_BCHW)
            return score.flatten()
        assert label_B is not None
        features = self.layers[: -2 if self.group else -1](x_BCHW)
        score = self.layers[-2 if self.group else -1 :](features)
        projected: Tensor = self.projection(features.flatten(2).sum(dim=2), label_B)
        return score.flatten() + projected
