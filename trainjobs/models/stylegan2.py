"""StyleGAN2: a generator whose latent sets the strength of every feature at every resolution, and its discriminator.

Karras et al., "Analyzing and improving the image quality of StyleGAN", 2020 (arXiv 1912.04958).

mapping         w = f(z / |z|), eight equalised layers whose rate is 0.01 of the others' (section 2 of StyleGAN, arXiv 1812.04948)
convolution     modulated by s = A w, and demodulated (equations 1 to 3):  w''_oik = s_i w_oik / sqrt(sum_ik (s_i w_oik)^2 + 1e-8)
noise           N(0, 1) for each place and sample, times one learned strength for each convolution
skip generator  each resolution adds to the image what its 1 x 1 convolution, modulated only, makes of its features (figure 7)
residual        discriminator: halves in each block, (conv conv + skip) / sqrt(2)
style mixing    of a share of the samples, layers from a random one on take the style of another latent (arXiv 1812.04948, section 3.1)
truncation      w <- mean + psi (w - mean), for samples, never in training (section 2 there). The mean is of 10,000 fixed latents

Noise is a function of the sample's own stream, so an image does not depend on who draws it. No compiled operations. Widths: `channels`
feature maps at the full resolution, twice as many at each lower one, at most 8 times as many.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.models.deviation import MinibatchDeviation
from trainjobs.models.equalized import Convolution, Linear, leaky
from trainjobs.models.mapping import Embedded, Mapping
from trainjobs.models.resample import blurred, doubled, halved
from trainjobs.noise import Between, Noise, mix

_WIDEST = 8
MAPPING_DEPTH = 8
MEAN_OF = 10_000  # latents


def widths(size: int, channels: int) -> list[int]:
    """Feature maps at 4, 8, ..., `size` pixels; `size` is a power of two, at least 8."""
    return [channels * min(size >> level, _WIDEST) for level in range(2, size.bit_length())]


class Modulated(nn.Module):
    """A convolution whose weights are each sample's own: float [B, inputs, H, W], w [B, latent] -> float [B, outputs, H, W], or at twice
    the size with `up`. With `demodulate` the outputs have unit variance if the inputs have.

    The scaled weights are never made: inputs are multiplied by s, and outputs by what demodulation divides by, which is the same.
    """

    def __init__(self, inputs: int, outputs: int, size: int, latent: int, *, up: bool = False, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.style = Linear(latent, inputs, bias=1.0)
        self.scale = 1.0 / math.sqrt(inputs * size**2)
        self.up, self.demodulate = up, demodulate

    def forward(self, x_BIHW: Tensor, w_BW: Tensor) -> Tensor:
        s_BI = self.style(w_BW)
        weight_OIKK = self.weight * self.scale
        x_BIHW = x_BIHW * s_BI[:, :, None, None]
        if self.up:
            y_BOHW = blurred(F.conv_transpose2d(x_BIHW, weight_OIKK.transpose(0, 1), stride=2), padding=1, gain=4.0)
        else:
            y_BOHW = F.conv2d(x_BIHW, weight_OIKK, padding=weight_OIKK.shape[-1] // 2)
        if not self.demodulate:
            return y_BOHW
        with torch.autocast(s_BI.device.type, enabled=False):  # a sum of squares wants more than bf16's eight bits
            energy_OI = wide(weight_OIKK).square().sum(dim=(2, 3))
            d_BO = (wide(s_BI).square() @ energy_OI.T + 1e-8).rsqrt()
        return y_BOHW * d_BO.to(y_BOHW.dtype)[:, :, None, None]


class Styled(nn.Module):
    """A modulated convolution, noise, bias and activation."""

    def __init__(self, inputs: int, outputs: int, latent: int, *, up: bool = False) -> None:
        super().__init__()
        self.convolution = Modulated(inputs, outputs, 3, latent, up=up)
        self.strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x_BIHW: Tensor, w_BW: Tensor, noise_B1HW: Tensor) -> Tensor:
        """`noise_B1HW` is of the size of what comes out."""
        y_BOHW: Tensor = self.convolution(x_BIHW, w_BW)
        return leaky(y_BOHW + self.strength * noise_B1HW.to(y_BOHW.dtype) + self.bias[:, None, None])


class Colour(nn.Module):
    """What features contribute to the image: float [B, image channels, H, W]."""

    def __init__(self, inputs: int, image_channels: int, latent: int) -> None:
        super().__init__()
        self.convolution = Modulated(inputs, image_channels, 1, latent, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x_BIHW: Tensor, w_BW: Tensor) -> Tensor:
        image: Tensor = self.convolution(x_BIHW, w_BW)
        return image + self.bias[:, None, None]


class Generator(nn.Module):
    """z [B, latent_dim] and the samples' noise to float [B, image_channels, size, size], unbounded. With `classes` also of int64 [B], the
    class that each is to be of."""

    def __init__(
        self, *, latent_dim: int, channels: int, size: int, image_channels: int, mapping_layers: int = MAPPING_DEPTH, classes: int = 0
    ) -> None:
        super().__init__()
        wide = widths(size, channels)
        self.mapping = Mapping(latent_dim, mapping_layers, beside=classes > 0)
        self.told = Embedded(classes, latent_dim) if classes else None
        self.constant = nn.Parameter(torch.randn(1, wide[0], 4, 4))
        self.first = Styled(wide[0], wide[0], latent_dim)
        self.raised = nn.ModuleList(Styled(inner, outer, latent_dim, up=True) for inner, outer in pairwise(wide))
        self.refined = nn.ModuleList(Styled(outer, outer, latent_dim) for outer in wide[1:])
        self.colours = nn.ModuleList(Colour(outer, image_channels, latent_dim) for outer in wide)
        self.latent_dim = latent_dim
        self.layers = 2 * len(wide)  # that take a style of their own: each convolution, and the last colour
        self._mean: tuple[list[Tensor], Tensor] | None = None

    def forward(self, z_BZ: Tensor, noise: Noise, label_B: Tensor | None = None, *, mixing: float = 0.0, truncation: float = 1.0) -> Tensor:
        w_BLW = self.styles(z_BZ, noise, mixing, label_B)
        if truncation != 1.0:
            mean_W = self.mean_style().to(w_BLW.dtype)
            w_BLW = mean_W + truncation * (w_BLW - mean_W)
        return self.draw(w_BLW, noise)

    def styles(self, z_BZ: Tensor, noise: Noise, mixing: float = 0.0, label_B: Tensor | None = None) -> Tensor:
        """float [B, layers, latent]: the style of each layer. `mixing` is the share of samples that mix two, of one class. On the way from
        one sample to another the way is straight in w (Karras et al., section 3.1 of StyleGAN, 2019, arXiv 1812.04948)."""
        if isinstance(noise, Between):
            here, there = (self.style(end.normal("z", z_BZ.shape[1]).to(z_BZ.dtype), label_B) for end in noise.ends)
            w_BW = torch.lerp(here, there, noise.share[:, None].to(here.dtype))
        else:
            w_BW = self.style(z_BZ, label_B)
        w_BLW: Tensor = w_BW[:, None].expand(-1, self.layers, -1)
        if mixing == 0.0:
            return w_BLW
        other_BLW = self.style(noise.normal("z.mixed", z_BZ.shape[1]).to(z_BZ.dtype), label_B)[:, None]
        mixes_B = noise.uniform("mixing")[:, None] < mixing
        place_BL = torch.arange(self.layers, device=z_BZ.device) > noise.integers("mixing.from", self.layers - 1)[:, None]
        return torch.where((mixes_B & place_BL)[:, :, None], other_BLW, w_BLW)

    def style(self, z_BZ: Tensor, label_B: Tensor | None = None) -> Tensor:
        """float [B, latent], w."""
        w_BW: Tensor = self.mapping(z_BZ) if self.told is None else self.mapping(z_BZ, self.told(label_B))
        return w_BW

    def draw(self, w_BLW: Tensor, noise: Noise) -> Tensor:
        """The images of these styles."""
        w, last = w_BLW.unbind(dim=1), len(self.raised)
        shapes = {f"noise.{number}": (1, *2 * (4 << (number + 1) // 2,)) for number in range(2 * last + 1)}
        grains = [*noise.normals(shapes).values()]
        x_BCHW = self.first(self.constant.expand(len(w_BLW), -1, -1, -1), w[0], grains[0])
        image = self.colours[0](x_BCHW, w[1])
        for level, (raised, refined) in enumerate(zip(self.raised, self.refined, strict=True), start=1):
            x_BCHW = raised(x_BCHW, w[2 * level - 1], grains[2 * level - 1])
            x_BCHW = refined(x_BCHW, w[2 * level], grains[2 * level])
            image = doubled(image) + self.colours[level](x_BCHW, w[2 * level + 1])
        made: Tensor = image
        return made

    def mean_style(self) -> Tensor:
        """float [latent], the mean w of the weights of now, over classes taken in turn. Nothing of it is saved: it is found anew when the
        weights have changed."""
        told = [] if self.told is None else [*self.told.parameters()]
        weights = [parameter.detach() for parameter in (*self.mapping.parameters(), *told)]
        if self._mean is None or not all(map(torch.equal, self._mean[0], weights)):
            with torch.no_grad():
                numbers_N = torch.arange(MEAN_OF, device=weights[0].device)
                z_NZ = Noise(mix("mean of styles"), numbers_N).normal("z", self.latent_dim)
                labels_N = None if self.told is None else numbers_N % self.told.classes
                self._mean = [weight.clone() for weight in weights], self.style(z_NZ, labels_N).double().mean(dim=0).float()
        return self._mean[1]


class Halving(nn.Module):
    """A residual block of the discriminator: float [B, inputs, H, W] -> float [B, outputs, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Convolution(inputs, inputs, 3), Convolution(inputs, outputs, 3)
        self.skip = Convolution(inputs, outputs, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = leaky(self.second(blurred(leaky(self.first(x_BCHW)), padding=2), stride=2, padding=0))
        skipped: Tensor = self.skip(halved(x_BCHW))
        return (y_BCHW + skipped) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """float [B, image_channels, size, size] -> float [B]: unbounded scores, high for real samples. B is a multiple of `group`.
    With `classes` also of int64 [B]: the score is a product of features and what a mapping network makes of the class, over the root of
    their number."""

    def __init__(self, *, channels: int, size: int, image_channels: int, group: int | None = None, classes: int = 0) -> None:
        super().__init__()
        narrow = widths(size, channels)[::-1]
        deepest = narrow[-1]
        self.colour = Convolution(image_channels, narrow[0], 1)
        self.blocks = nn.Sequential(*[Halving(outer, inner) for outer, inner in pairwise(narrow)])
        self.deviation = MinibatchDeviation(group) if group else nn.Identity()
        self.last = Convolution(deepest + bool(group), deepest, 3)
        self.hidden, self.score = Linear(deepest * 16, deepest), Linear(deepest, deepest if classes else 1)
        self.told = Embedded(classes, deepest) if classes else None
        self.mapping = Mapping(deepest, MAPPING_DEPTH) if classes else None

    def forward(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        x_BCHW = self.deviation(self.blocks(leaky(self.colour(x_BCHW))))
        score: Tensor = self.score(leaky(self.hidden(leaky(self.last(x_BCHW)).flatten(1))))
        if self.told is None or self.mapping is None:
            return score.flatten()
        against_BC: Tensor = self.mapping(self.told(label_B))
        return (score * against_BC).sum(dim=1) / math.sqrt(score.shape[1])


def wide(value: Tensor) -> Tensor:
    """At least float32."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
