"""Samples as files that people look at: a grid of images, a scatter plot of points, texts.

Drawn with Pillow alone. Files are replaced atomically, so a reader never sees half of one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from trainjobs.data.ring import SIGMA
from trainjobs.objectives.phase import Samples

SMALLEST_CELL = 32  # pixels; smaller images are enlarged by a whole factor
ROW = 8  # pairs of an original and its reconstruction in a row
GAP = 2  # pixels between cells
PLOT = 512  # pixels, width and height of a scatter plot
SUPERSAMPLING = 2  # drawn this much larger, then reduced: Pillow's lines are not smooth
MARGIN = 36  # pixels for the labels of the axes

_INK, _GRID, _MODE, _POINT = (60, 60, 60), (225, 225, 225), (214, 39, 40), (31, 119, 180, 110)

Modes = Sequence[tuple[float, float]]


def save_samples(samples: Samples, stem: Path, *, modes: Modes | None = None, sigma: float = SIGMA) -> Path:
    """Write samples to `stem` with .png or .txt after it, and return that path. Its folder is made. `modes` are marked on a plot of points,
    as circles of three `sigma`. OSError when it cannot be written."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    if samples.texts is not None:
        return _replace(stem.with_name(stem.name + ".txt"), document(samples.texts).encode())
    picture = grid(samples.images) if samples.images is not None else scatter(_points(samples), modes or (), sigma)
    return save(picture, stem)


def save(picture: Image.Image, stem: Path) -> Path:
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_name(stem.name + ".png")
    unfinished = path.with_name(path.name + ".partial")
    picture.save(unfinished, format="PNG")
    os.replace(unfinished, path)
    return path


def _points(samples: Samples) -> Tensor:
    if samples.points is None:
        raise ValueError("samples hold neither images, nor points, nor texts")
    return samples.points


def _replace(path: Path, content: bytes) -> Path:
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
    return path


def document(texts: Sequence[str]) -> str:
    """The texts one after another, each under a line with its number."""
    return "\n".join(f"--- {number} ---\n{text}\n" for number, text in enumerate(texts, start=1))


def save_pairs(originals: Samples, rebuilt: Samples, stem: Path, *, modes: Modes | None = None, sigma: float = SIGMA) -> Path | None:
    """Images: each original with what was made of it beneath, in rows of eight. Points: what was made of them. None for texts."""
    if rebuilt.images is None or originals.images is None:
        return save_samples(rebuilt, stem, modes=modes, sigma=sigma) if rebuilt.points is not None else None
    count = len(rebuilt.images)
    rows = [(side[at : at + ROW]) for at in range(0, count, ROW) for side in (originals.images[:count], rebuilt.images)]
    # A row that is not full is filled up with the grey of the ground, so that every pair stays together.
    full = [torch.cat([row.float().cpu(), torch.zeros(ROW - len(row), *row.shape[1:])]) for row in rows] if count > ROW else rows
    return save(grid(torch.cat([row.float().cpu() for row in full]), columns=min(ROW, count)), stem)


def cells(images_NCHW: Tensor) -> list[Image.Image]:
    """Each image in [-1, 1] by itself; values outside are clipped, NaN is black."""
    images = images_NCHW.detach().float().cpu().nan_to_num(nan=-1.0).clamp(-1.0, 1.0)
    pixels = ((images + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(cell[:, :, 0] if cell.shape[2] == 1 else cell) for cell in pixels]


def grid(images_NCHW: Tensor, columns: int | None = None) -> Image.Image:
    """A grid of images in [-1, 1] (values outside are clipped, NaN is black), row by row, on a grey ground; near-square unless the number
    of columns is given."""
    count, channels, height, width = images_NCHW.shape
    factor = max(1, math.ceil(SMALLEST_CELL / min(height, width)))
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    step_x, step_y = width * factor + GAP, height * factor + GAP
    size = (columns * step_x + GAP, rows * step_y + GAP)
    picture = Image.new("L", size, 128) if channels == 1 else Image.new("RGB", size, (128, 128, 128))
    for number, image in enumerate(cells(images_NCHW)):
        image = image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
        picture.paste(image, (GAP + number % columns * step_x, GAP + number // columns * step_y))
    return picture


def scatter(points_N2: Tensor, modes: Modes = (), sigma: float = 0.0) -> Image.Image:
    """Points in the plane on equal axes, the true modes circled. Shows the square that holds the modes, or without any all the points;
    points outside it are left out."""
    points = points_N2.detach().float().cpu()
    points = points[points.isfinite().all(dim=1)]
    reach = max((abs(value) for mode in modes for value in mode), default=0.0) or (float(points.abs().max()) if len(points) else 1.0)
    half = 1.4 * max(reach, 1e-6)
    size, margin = PLOT * SUPERSAMPLING, MARGIN * SUPERSAMPLING
    scale = (size - 2 * margin) / (2.0 * half)

    def place(x: float, y: float) -> tuple[float, float]:
        return margin + (x + half) * scale, size - margin - (y + half) * scale

    picture = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(picture, "RGBA")
    for tick in ticks(half):
        draw.line([place(tick, -half), place(tick, half)], fill=_GRID, width=SUPERSAMPLING)
        draw.line([place(-half, tick), place(half, tick)], fill=_GRID, width=SUPERSAMPLING)
    draw.rectangle([place(-half, half), place(half, -half)], outline=_INK, width=SUPERSAMPLING)
    radius = 2 * SUPERSAMPLING
    for x, y in points.tolist():
        if abs(x) <= half and abs(y) <= half:
            left, top = place(x, y)
            draw.ellipse([left - radius, top - radius, left + radius, top + radius], fill=_POINT)
    ring = max(3.0 * sigma * scale, 5.0 * SUPERSAMPLING)
    for x, y in modes:
        left, top = place(x, y)
        draw.ellipse([left - ring, top - ring, left + ring, top + ring], outline=_MODE, width=SUPERSAMPLING)
    picture = picture.resize((PLOT, PLOT), Image.Resampling.LANCZOS)
    _label(ImageDraw.Draw(picture), half)
    return picture


def _label(draw: ImageDraw.ImageDraw, half: float) -> None:
    """The numbers of the axes, at the final size: text does not survive being reduced."""
    inner = PLOT - 2 * MARGIN
    for tick in ticks(half):
        at = MARGIN + (tick + half) / (2.0 * half) * inner
        draw.text((at, PLOT - MARGIN + 6), f"{tick:g}", fill=_INK, anchor="mt")
        draw.text((MARGIN - 6, PLOT - at), f"{tick:g}", fill=_INK, anchor="rm")


def ticks(half: float) -> list[float]:
    """Round numbers within [-half, half]: multiples of 1, 2 or 5 times a power of ten, 4 to 10 of them."""
    power = 10.0 ** math.floor(math.log10(half))
    step = next(factor * power for factor in (0.2, 0.5, 1.0, 2.0) if half / (factor * power) <= 5.0)
    count = math.floor(half / step)
    return [round(i * step, 10) for i in range(-count, count + 1)]
