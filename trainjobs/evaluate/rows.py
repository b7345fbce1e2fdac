"""Pictures row by row: what is drawn for a class or a prompt in a row of its own with its name, and what lies between two samples.

On the sheet of an evaluation a column has one noise: the pictures of a column differ by what they are drawn for alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.evaluate.pictures import GAP, SMALLEST_CELL, Modes, cells, save, save_samples
from trainjobs.evaluate.prompts import role
from trainjobs.evaluate.sheet import fitted
from trainjobs.objectives.phase import Samples

WIDEST = 16  # pictures in a line; a row that is longer goes on in the next
LABEL = 160  # pixels, at most, of a name
INK, GROUND = (40, 40, 40), (255, 255, 255)


def names_of(spec: Spec, info: DataInfo) -> tuple[str, ...]:
    """What each row of a sheet is drawn for, and so the samples one after the other: the manifest's prompts, else the classes of a model
    that draws by them; () where samples are drawn for nothing, for what held-out ones are of, or are texts."""
    if spec.language or not role(spec):
        return ()
    if spec.evaluation.prompts:
        return tuple(spec.evaluation.prompts)
    return info.classes if role(spec) == "label" else ()


def numbers(rows: Tensor, names: Sequence[str]) -> Tensor:
    """int64 [B]: the noise of samples number `rows`; with names that of their columns."""
    return rows // len(names) if names else rows


def save_sheet(samples: Samples, stem: Path, *, rows: Sequence[str] = (), steps: int = 0, modes: Modes | None = None) -> Path:
    """`save_samples`, of pictures by rows of these names, or with so many steps from one sample to the next."""
    if samples.images is None or not len(samples.images) or not (rows or steps):
        return save_samples(samples, stem, modes=modes)
    return save(by_row(samples.images, rows) if rows else on_the_way(samples.images, steps), stem)


def by_row(images_NCHW: Tensor, names: Sequence[str]) -> Image.Image:
    """Image n stands in row n % len(names), behind that row's name, cut where it is too wide."""
    names = names[: len(images_NCHW)]
    lines: list[tuple[str, list[int]]] = []
    for row, name in enumerate(names):
        mine = list(range(row, len(images_NCHW), len(names)))
        lines += [(name if not start else "", mine[start : start + WIDEST]) for start in range(0, len(mine), WIDEST)]
    return _drawn(images_NCHW, lines)


def on_the_way(images_NCHW: Tensor, steps: int) -> Image.Image:
    """Line k leads from sample k to sample k + 1; image `steps` k is sample k, as many as lines and one more."""
    count = (len(images_NCHW) - 1) // steps
    if not count:  # one sample, which leads nowhere
        return _drawn(images_NCHW, [("", [0])])
    return _drawn(images_NCHW, [("", list(range(line * steps, (line + 1) * steps + 1))) for line in range(count)])


def _drawn(images_NCHW: Tensor, lines: Sequence[tuple[str, Sequence[int]]]) -> Image.Image:
    made, font = cells(images_NCHW), ImageFont.load_default(size=11)
    width, height = made[0].size
    factor = max(1, math.ceil(SMALLEST_CELL / min(width, height)))
    cell = (width * factor, height * factor)
    texts = [fitted(name, LABEL, font) for name, _ in lines]
    margin = max(math.ceil(font.getlength(text)) for text in texts)
    left = margin + 3 * GAP if margin else GAP
    columns = max(len(places) for _, places in lines)
    sheet = Image.new("RGB", (left + columns * (cell[0] + GAP), GAP + len(lines) * (cell[1] + GAP)), GROUND)
    draw = ImageDraw.Draw(sheet)
    for line, (text, (_, places)) in enumerate(zip(texts, lines, strict=True)):
        top = GAP + line * (cell[1] + GAP)
        draw.text((left - 2 * GAP, top + cell[1] // 2), text, fill=INK, font=font, anchor="rm")
        for column, place in enumerate(places):
            enlarged = made[place].convert("RGB").resize(cell, Image.Resampling.NEAREST)
            sheet.paste(enlarged, (left + column * (cell[0] + GAP), top))
    return sheet
