"""Adaptive discriminator augmentation: how much is augmented follows how surely the discriminator knows real samples.

    r = E sign(D(T(x)) - b),    p <- min(1, max(0, p + sign(r - target) k B / images))    every k steps of B real samples

b the score at which D cannot tell, E over all samples that D's main phase saw since the last time, of all ranks; so p can go from 0 to 1
while `images` are shown. Each operation of the pipeline is applied to each sample with probability p, apart from the others. Karras et al.,
"Training generative adversarial networks with limited data", 2020 (arXiv 2006.06676, section 3.1 and appendix B):

blit    mirror;  turn by a quarter, as often as not 0 to 3 times;  shift by whole pixels ~ U(-1/8, 1/8) of the size
geom    scale 2^N(0, 0.2^2);  turn by U(-pi, pi), before and after, each with probability 1 - sqrt(1 - p);  stretch 2^N(0, 0.2^2) in one
        direction and as much the other way in the other;  shift by N(0, 1/8^2) of the size
color   brightness + N(0, 0.2^2);  contrast * 2^N(0, 0.5^2);  and of three channels: mirror of the luma, hue + U(-pi, pi), saturation *
        2^N(0, 1)

Places are reflected at the edges. They are looked up, linearly, in pictures of twice the size, made and undone by the low pass of the
wavelet sym6, as there. Pixels are in [-1, 1], and may leave that range. p is a number of the host: no step waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainjobs.api.gan import Augment
from trainjobs.noise import Noise
from trainjobs.objectives.gan.gradient_penalty import wide

# Daubechies' least asymmetric wavelet of six vanishing moments, its low pass; sums to sqrt(2).
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466, 0.787641141030194,
    0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
DELAY = sum(place * tap for place, tap in enumerate(SYM6)) / sum(SYM6) - 5.5  # pixels of the larger picture
LUMA = 1.0 / math.sqrt(3.0)  # each channel's part of the direction of grey


@dataclass
class Ada:
    """p, and what was heard of r since it last changed. `images` is how many real samples a step shows."""

    settings: Augment
    images: int
    p: float = 0.0
    _heard: list[float] = field(default_factory=list)
    _steps: int = 0

    def adapt(self, means: Mapping[str, float], steps: int) -> None:
        """The means over the last `steps` steps."""
        self._heard.append(means["sign/real"])
        self._steps += steps
        if self._steps >= self.settings.every_steps:
            excess = math.fsum(self._heard) / len(self._heard) - self.settings.target
            up = (excess > 0) - (excess < 0)
            self.p = min(1.0, max(0.0, self.p + up * self._steps * self.images / self.settings.images))
            self._heard, self._steps = [], 0

    def state(self) -> dict[str, Any]:
        return {"p": self.p, "heard": list(self._heard), "steps": self._steps}

    def load_state(self, state: dict[str, Any]) -> None:
        self.p, self._heard, self._steps = float(state["p"]), list(state["heard"]), int(state["steps"])


def augmented(x_BCHW: Tensor, pipeline: Sequence[str], p: float, noise: Noise, name: str) -> Tensor:
    """float [B, C, H, W], at least float32; the parts of the pipeline with randomness of that name."""
    x_BCHW = wide(x_BCHW)
    with torch.autocast(x_BCHW.device.type, enabled=False):
        if "blit" in pipeline:
            x_BCHW = blit(x_BCHW, p, noise, f"{name}.blit")
        if "geom" in pipeline:
            x_BCHW = placed(x_BCHW, geometry(p, noise, f"{name}.geom").to(x_BCHW.dtype))
        if "color" in pipeline:
            x_BCHW = coloured(x_BCHW, colours(x_BCHW.shape[1], p, noise, f"{name}.color").to(x_BCHW.dtype))
    return x_BCHW


def blit(x_BCHW: Tensor, p: float, noise: Noise, name: str) -> Tensor:
    """Pixels go to other places, and none is changed."""
    size = x_BCHW.shape[-1]
    row, column = torch.meshgrid(*[torch.arange(size, device=x_BCHW.device)] * 2, indexing="ij")
    row_BHW, column_BHW = (place.expand(len(x_BCHW), -1, -1) for place in (row, column))
    most = int(size * 0.125 + 0.5)
    shifts = chosen(p, noise, f"{name}.shift")
    for axis in range(2):
        by_B = torch.where(shifts, noise.integers(f"{name}.by.{axis}", 2 * most + 1) - most, 0)[:, None, None]
        if axis == 0:
            row_BHW = reflected(row_BHW + by_B, size)
        else:
            column_BHW = reflected(column_BHW + by_B, size)
    turns_B = torch.where(chosen(p, noise, f"{name}.turn"), noise.integers(f"{name}.turns", 4), 0)[:, None, None]
    for turn in range(1, 4):  # once more for each turn that is left
        row_BHW, column_BHW = (
            torch.where(turns_B >= turn, column_BHW, row_BHW),
            torch.where(turns_B >= turn, size - 1 - row_BHW, column_BHW),
        )
    mirrors_B = (chosen(p, noise, f"{name}.mirror") & (noise.integers(f"{name}.mirrored", 2) == 1))[:, None, None]
    column_BHW = torch.where(mirrors_B, size - 1 - column_BHW, column_BHW)
    places = (row_BHW * size + column_BHW).flatten(1)[:, None].expand(-1, x_BCHW.shape[1], -1)
    return x_BCHW.flatten(2).gather(2, places).view(x_BCHW.shape)


def reflected(place: Tensor, size: int) -> Tensor:
    """Of places within one size of a picture, those in it: -1 is 0, and `size` is `size` - 1."""
    return torch.where(place < 0, -1 - place, torch.where(place >= size, 2 * size - 1 - place, place))


def chosen(p: float, noise: Noise, name: str) -> Tensor:
    """bool [B], true with probability p."""
    return noise.uniform(name) < p


def geometry(p: float, noise: Noise, name: str) -> Tensor:
    """float [B, 2, 3]: from a place in the result to one in the picture, in halves of the size from the centre."""
    size = torch.exp2(0.2 * _normal(p, noise, f"{name}.scale"))
    turned = 1.0 - math.sqrt(1.0 - p)
    before, after = (
        torch.where(chosen(turned, noise, f"{name}.{when}"), (2.0 * noise.uniform(f"{name}.{when}.angle") - 1.0) * math.pi, 0.0)
        for when in ("before", "after")
    )
    stretch = torch.exp2(0.2 * _normal(p, noise, f"{name}.stretch"))
    shift_B2 = 2.0 * 0.125 * torch.where(chosen(p, noise, f"{name}.shift")[:, None], noise.normal(f"{name}.by", 2), 0.0)
    stretched = torch.zeros(len(size), 2, 2, device=size.device)
    stretched[:, 0, 0], stretched[:, 1, 1] = 1.0 / (size * stretch), stretch / size
    turn_B22 = _rotation(before) @ stretched @ _rotation(after)
    return torch.cat([turn_B22, -(turn_B22 @ shift_B2[:, :, None])], dim=2)


def placed(x_BCHW: Tensor, map_B23: Tensor) -> Tensor:
    """The pictures that are moved; the others as they are, to the last bit."""
    still_B = (map_B23 == torch.eye(2, 3, dtype=map_B23.dtype, device=map_B23.device)).flatten(1).all(dim=1)
    return torch.where(still_B[:, None, None, None], x_BCHW, warped(x_BCHW, map_B23))


def warped(x_BCHW: Tensor, map_B23: Tensor) -> Tensor:
    """Looked up at other places: in a picture of twice the size, for a result of twice the size."""
    large_BCHW = _doubled(x_BCHW)
    # The low pass moves what is made larger by this much, and back what is made smaller; what is turned in between would be moved twice.
    off_21 = torch.full((2, 1), DELAY / x_BCHW.shape[-1], dtype=map_B23.dtype, device=map_B23.device)
    turn_B22, shift_B21 = map_B23[:, :, :2], map_B23[:, :, 2:]
    map_B23 = torch.cat([turn_B22, shift_B21 + off_21 - turn_B22 @ off_21], dim=2)
    grid = F.affine_grid(map_B23, list(large_BCHW.shape), align_corners=False)
    return _halved(F.grid_sample(large_BCHW, grid, mode="bilinear", padding_mode="reflection", align_corners=False))


def colours(channels: int, p: float, noise: Noise, name: str) -> Tensor:
    """float [B, 4, 4] for colours (r, g, b, 1); of one channel, of which a grey one has each, brightness and contrast alone."""
    brightness = 0.2 * _normal(p, noise, f"{name}.brightness")
    contrast = torch.exp2(0.5 * _normal(p, noise, f"{name}.contrast"))
    count, device = len(brightness), brightness.device
    one_B44 = torch.eye(4, device=device).expand(count, 4, 4)
    made_B44 = one_B44.clone()
    made_B44[:, :3, 3] = brightness[:, None]
    made_B44 = (one_B44 * torch.stack([contrast] * 3 + [torch.ones_like(contrast)], dim=1)[:, :, None]) @ made_B44
    if channels == 1:
        return made_B44
    grey = torch.zeros(4, 4, device=device)
    grey[:3, :3] = LUMA**2  # v v^T of the direction of grey
    flips_B = chosen(p, noise, f"{name}.flip") & (noise.integers(f"{name}.flipped", 2) == 1)
    made_B44 = (one_B44 - 2.0 * grey * flips_B.float()[:, None, None]) @ made_B44
    angle = torch.where(chosen(p, noise, f"{name}.hue"), (2.0 * noise.uniform(f"{name}.angle") - 1.0) * math.pi, 0.0)
    made_B44 = _about_grey(angle) @ made_B44
    saturation = torch.exp2(_normal(p, noise, f"{name}.saturation"))[:, None, None]
    whole = torch.eye(4, device=device)
    whole[3, 3] = 0.0
    own = grey + (whole - grey) * saturation
    own[:, 3, 3] = 1.0
    return own @ made_B44


def coloured(x_BCHW: Tensor, map_B44: Tensor) -> Tensor:
    """Every pixel by the sample's own map."""
    if x_BCHW.shape[1] == 1:
        return x_BCHW * map_B44[:, :1, :1, None] + map_B44[:, :1, 3:, None]
    flat = map_B44[:, :3, :3] @ x_BCHW.flatten(2) + map_B44[:, :3, 3:]
    return flat.view(x_BCHW.shape)


def _normal(p: float, noise: Noise, name: str) -> Tensor:
    """float [B]: standard normal where it is applied, else 0."""
    return torch.where(chosen(p, noise, name), noise.normal(f"{name}.by", 1)[:, 0], 0.0)


def _rotation(angle: Tensor) -> Tensor:
    """float [B, 2, 2]."""
    rows = [torch.stack([angle.cos(), -angle.sin()], dim=1), torch.stack([angle.sin(), angle.cos()], dim=1)]
    return torch.stack(rows, dim=1)


def _about_grey(angle: Tensor) -> Tensor:
    """float [B, 4, 4]: a rotation about (1, 1, 1), by Rodrigues' formula."""
    v = LUMA
    cross = torch.tensor([[0.0, -v, v], [v, 0.0, -v], [-v, v, 0.0]], device=angle.device)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    made = torch.eye(4, device=angle.device).repeat(len(angle), 1, 1)
    made[:, :3, :3] = cos * torch.eye(3, device=angle.device) + sin * cross + (1.0 - cos) * v**2
    return made


def _doubled(x_BCHW: Tensor) -> Tensor:
    """Twice the size, aligned at the edges; the picture goes on beyond them as its reflection."""
    margin = min(4, x_BCHW.shape[-1])
    x_BCHW = _framed(x_BCHW, margin)
    taps = torch.tensor(SYM6, dtype=x_BCHW.dtype, device=x_BCHW.device)
    for axis in (2, 3):
        kernel = (taps * (2.0 / taps.sum())).view((1, 1, 12, 1) if axis == 2 else (1, 1, 1, 12)).expand(x_BCHW.shape[1], -1, -1, -1)
        stride, padding = ((2, 1), (5, 0)) if axis == 2 else ((1, 2), (0, 5))
        x_BCHW = F.conv_transpose2d(x_BCHW, kernel, stride=stride, padding=padding, groups=x_BCHW.shape[1])
    return x_BCHW[:, :, 2 * margin : x_BCHW.shape[2] - 2 * margin, 2 * margin : x_BCHW.shape[3] - 2 * margin]


def _halved(x_BCHW: Tensor) -> Tensor:
    """Undoes it."""
    x_BCHW = _framed(x_BCHW, min(5, x_BCHW.shape[-1]))
    taps = torch.tensor(SYM6, dtype=x_BCHW.dtype, device=x_BCHW.device)
    for axis in (2, 3):
        kernel = (taps / taps.sum()).view((1, 1, 12, 1) if axis == 2 else (1, 1, 1, 12)).expand(x_BCHW.shape[1], -1, -1, -1)
        x_BCHW = F.conv2d(x_BCHW, kernel, stride=(2, 1) if axis == 2 else (1, 2), groups=x_BCHW.shape[1])
    return x_BCHW


def _framed(x_BCHW: Tensor, margin: int) -> Tensor:
    """With so many rows and columns more on each side, reflected at the edges."""
    for axis in (2, 3):
        first = x_BCHW.narrow(axis, 0, margin).flip(axis)
        last = x_BCHW.narrow(axis, x_BCHW.shape[axis] - margin, margin).flip(axis)
        x_BCHW = torch.cat([first, x_BCHW, last], dim=axis)
    return x_BCHW
