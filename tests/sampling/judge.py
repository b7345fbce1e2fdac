"""Tells from the pixels of a picture which of builtin:shapes it shows, so that a test can see whether a caption was obeyed.

The colour is the nearest of the six by the mean of the strongest half of the coloured pixels, at full brightness. The shape is the one
whose drawing, of the same area and about the same centre of mass, is nearest to the coloured part in squares: a circle pi r^2, a square
2.56 r^2, a triangle 1.08 sqrt(3) r^2, in shapes.py's radii. What is no such picture at all is judged, too, one way or another.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainjobs.data.shapes import COLOURS, SHAPES

_RGB = dict(zip(COLOURS, ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1)), strict=True))
_FAINT = 0.15  # of the shape's own colour: ground and noise
# Of a radius of 1: area, sides (none of a circle) and apothem.
_FORMS = dict(zip(SHAPES, ((math.pi, 0, 0.0), (2.56, 4, 0.8), (1.08 * math.sqrt(3), 3, 0.6)), strict=True))


def judged(picture: Tensor) -> tuple[str, str]:
    """(colour, shape) of a picture, float [3, S, S] in [0, 1]."""
    chroma = picture.amax(0) - picture.amin(0)
    coloured = int((chroma > 0.5 * chroma.max()).sum())
    strongest = chroma.flatten().topk(max(4, coloured // 2)).indices
    mean = picture.flatten(1)[:, strongest].mean(1)
    mean = mean / mean.amax().clamp(min=1e-6)
    colour = min(_RGB, key=lambda name: float((mean - torch.tensor(_RGB[name], dtype=torch.float)).abs().sum()))
    cover = (chroma / chroma.flatten()[strongest].mean().clamp(min=1e-6)).clamp(0, 1)
    cover = torch.where(cover > _FAINT, cover, 0.0)
    return colour, min(SHAPES, key=lambda shape: _distance(cover, shape))


def _distance(cover: Tensor, shape: str) -> float:
    """Between what is covered, float [S, S] in [0, 1], and the shape of its area at its centre."""
    size, area = len(cover), float(cover.sum().clamp(min=1e-6))
    axis = torch.arange(size) + 0.5
    x = axis[None, :] - float((cover.sum(0) * axis).sum()) / area
    y = axis[:, None] - float((cover.sum(1) * axis).sum()) / area
    unit, sides, apothem = _FORMS[shape]
    radius = math.sqrt(area / unit)
    outside = (x**2 + y**2).sqrt() - radius
    if sides:
        turns = [math.tau * (side / sides + 0.25) for side in range(sides)]
        outside = torch.stack([x * math.cos(turn) + y * math.sin(turn) for turn in turns]).amax(0) - apothem * radius
    return float(((0.5 - outside).clamp(0, 1) - cover).square().sum())


def obeyed(pictures: Tensor, captions: list[str]) -> tuple[int, int]:
    """(colours, shapes) that are those of the captions, "a red circle"."""
    colours = shapes = 0
    for picture, caption in zip(pictures, captions, strict=True):
        colour, shape = judged(picture)
        _, asked, form = caption.split()
        colours, shapes = colours + (colour == asked), shapes + (shape == form)
    return colours, shapes
