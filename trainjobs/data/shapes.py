"""builtin:shapes: one coloured circle, square or triangle on a dark ground, a pure function of its number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `preflight` reads COUNT
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

COUNT = 8192
SHAPES = ("circle", "square", "triangle")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")  # a sixth of the colour wheel each


def draw(indices: Tensor, size: int) -> Tensor:
    """float [B, 3, size, size] in [0, 1] for int64 [B]. Every third is a circle, a square, a triangle.

    A shape is where the signed distance to its outline is negative (a polygon's: the largest distance to its sides, seen from the
    centre), blended with the ground over one pixel.
    """
    import torch

    from trainjobs.noise import Noise, mix

    noise = Noise(mix("builtin:shapes"), indices)
    centre = 0.32 + 0.36 * noise.uniform("centre", 2)
    radius = 0.12 + 0.13 * noise.uniform("radius", 1, 1)
    axis = (torch.arange(size) + 0.5) / size
    x = axis[None, None, :] - centre[:, 0, None, None]
    y = axis[None, :, None] - centre[:, 1, None, None]
    outlines = [(x**2 + y**2).sqrt() - radius]
    for sides, apothem in ((4, 0.8), (3, 0.6)):  # in radii; the corners are 1.13 and 1.2 away, and stay inside the picture
        turns = [math.tau * (side / sides + 0.25) for side in range(sides)]  # the first side is the lowest
        outlines.append(torch.stack([x * math.cos(turn) + y * math.sin(turn) for turn in turns]).amax(0) - apothem * radius)
    kind = (indices % 3)[:, None, None]
    distance = torch.where(kind == 0, outlines[0], torch.where(kind == 1, outlines[1], outlines[2]))
    inside = (0.5 - distance * size).clamp(0, 1)[:, None]
    # The colour wheel (see `captions`) at full saturation: red, green and blue are humps a third of a turn apart.
    hue = noise.uniform("hue", 1) + torch.tensor([0.0, 2 / 3, 1 / 3])
    colour = ((hue % 1 * 6 - 3).abs() - 1).clamp(0, 1)[:, :, None, None]
    ground = 0.2 * noise.uniform("ground", 1, 1, 1)
    return ground + inside * (colour - ground)


def captions(channels: int) -> list[str]:
    """Of all COUNT pictures: "a red circle", the colour being the nearest of COLOURS; "a circle" of grey ones."""
    import torch

    from trainjobs.noise import Noise, mix

    numbers = torch.arange(COUNT)
    sixths = (Noise(mix("builtin:shapes"), numbers).uniform("hue", 1)[:, 0] * 6).round().long() % 6
    shapes = [SHAPES[number % 3] for number in range(COUNT)]
    if channels == 1:
        return [f"a {shape}" for shape in shapes]
    return [f"a {COLOURS[sixth]} {shape}" for sixth, shape in zip(sixths.tolist(), shapes, strict=True)]


def rows(size: int, channels: int) -> Iterator[npt.NDArray[np.uint8]]:
    """All COUNT images, uint8 [channels, size, size]; grey by the luma of ITU-R BT.601."""
    import torch

    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    for start in range(0, COUNT, 64):
        images = draw(torch.arange(start, start + 64), size)
        if channels == 1:
            images = (images * weights).sum(1, keepdim=True)
        yield from (images * 255).round().to(torch.uint8).numpy()
