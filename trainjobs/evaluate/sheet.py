"""The first samples of the data as the model sees them: a sheet of pictures with their labels and captions, or texts cut into tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainjobs.data.bucketed import BucketedImages
from trainjobs.data.ring import SIGMA
from trainjobs.data.source import Source
from trainjobs.data.survey import Survey
from trainjobs.data.tokens import Tokenizer
from trainjobs.evaluate import learned
from trainjobs.evaluate.pictures import document, grid, scatter
from trainjobs.noise import Noise

COUNT = 64
COLUMNS = 8
CELL = 96  # pixels; smaller pictures are enlarged by a whole factor
LINES, LINE = 2, 13  # of what stands under a picture; pixels
GAP = 6
TEXTS = 8
BETWEEN, END = "│", "▮"  # between two tokens; where a document ends


@dataclass(frozen=True)
class Sheet:
    """What is seen of the data: `picture`, or `texts` cut into tokens."""

    picture: Image.Image | None = None
    texts: tuple[str, ...] = ()

    def save(self, stem: Path) -> Path:
        """`stem` with .png or .txt behind it. OSError."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        path = stem.with_name(f"{stem.name}.{'png' if self.picture else 'txt'}")
        unfinished = path.with_name(f"{path.name}.partial")
        if self.picture:
            self.picture.save(unfinished, format="PNG")
        else:
            unfinished.write_text(document(self.texts), encoding="utf-8")
        unfinished.replace(path)
        return path


def first(source: Source, seed: int) -> Sheet:
    """The samples of the first steps, in their order and with the augmentation that they get there (of one phase)."""
    info = source.info
    count = TEXTS if info.kind == "text" else COUNT
    positions = torch.arange(min(count, info.length))
    if isinstance(source, BucketedImages):
        return Sheet(sheet(*of_shapes(source, positions, seed)))
    batch = source.batch(positions, seed, Noise.of(seed, 0, "data", positions))
    if info.kind == "text":
        assert info.tokenizer is not None
        if "labels" in batch or "seen" in batch:
            return Sheet(texts=tuple(learned.texts(batch, partial(cut, tokenizer=info.tokenizer))))
        if "tokens" in batch:
            return Sheet(texts=tuple(cut(row, info.tokenizer) for row in batch["tokens"].tolist()))
        return Sheet(texts=tuple(exchange(batch, row, info.tokenizer) for row in range(len(positions))))
    if info.kind == "point":
        return Sheet(scatter(batch["point"], info.modes or (), SIGMA))
    return Sheet(sheet(batch["image"], under(batch, info.classes)))


def of_shapes(source: BucketedImages, positions: Tensor, seed: int) -> tuple[Tensor, list[list[str]]]:
    """The first samples in their shapes, each in the upper left corner of a white square that all of them fit into."""
    side = max(max(shape) for shape in source.places.shapes)
    whole, lines = [], list[list[str]]()
    for part in torch.split(positions, source.places.unit):
        batch = source.batch(part, seed, Noise.of(seed, 0, "data", part))
        height, width = batch["image"].shape[-2:]
        whole.append(torch.nn.functional.pad(batch["image"], (0, side - width, 0, side - height), value=1.0))
        lines += under(batch, source.info.classes)
    return torch.cat(whole), lines


def exchange(batch: Mapping[str, Tensor], row: int, tokenizer: Tokenizer) -> str:
    """A record of several texts, each under its role's name."""
    roles = [name.removesuffix("_length") for name in batch if name.endswith("_length")]
    parts = (f"{role}: {cut(batch[role][row, : int(batch[f'{role}_length'][row])].tolist(), tokenizer)}" for role in roles)
    return "\n".join(parts)


def tell(folder: Path, source: Source, seed: int, surveys: Sequence[Survey]) -> None:
    """Writes what the data is into a run's samples/: data.json, and data.png or data.txt. OSError."""
    first(source, seed).save(folder / "data")
    unfinished = folder / "data.json.partial"
    unfinished.write_text(json.dumps([one.as_data() for one in surveys], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(folder / "data.json")


def sheet(images_NCHW: Tensor, captions: Sequence[Sequence[str]]) -> Image.Image:
    """Pictures in [-1, 1] in rows of COLUMNS, each with its lines under it, cut where they are wider than it is."""
    count, _, height, width = images_NCHW.shape
    factor = max(1, math.ceil(CELL / min(height, width)))
    cell, lines = (width * factor, height * factor), min(LINES, max(map(len, captions), default=0))
    step = (cell[0] + GAP, cell[1] + GAP + lines * LINE)
    columns = min(COLUMNS, count)
    made = Image.new("RGB", (columns * step[0] + GAP, math.ceil(count / columns) * step[1] + GAP), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(size=11)
    for number in range(count):
        one = grid(images_NCHW[number : number + 1], columns=1)
        inner = one.crop((2, 2, one.width - 2, one.height - 2)).convert("RGB").resize(cell, Image.Resampling.NEAREST)
        x, y = GAP + number % columns * step[0], GAP + number // columns * step[1]
        made.paste(inner, (x, y))
        for line, text in enumerate(captions[number][:LINES] if captions else ()):
            draw.text((x, y + cell[1] + line * LINE), fitted(text, cell[0], font), fill=(40, 40, 40), font=font)
    return made


def under(batch: Mapping[str, Tensor], classes: Sequence[str] = ()) -> list[list[str]]:
    """What stands under each picture: its class, and its caption."""
    found: list[list[str]] = [[] for _ in range(len(batch["image"]))]
    if "label" in batch:
        for lines, label in zip(found, batch["label"].tolist(), strict=True):
            lines.append(classes[label] if 0 <= label < len(classes) else f"class {label}")
    if "caption" in batch:
        for lines, row in zip(found, batch["caption"].tolist(), strict=True):
            lines.append(" ".join(bytes(token for token in row if token < 256).decode(errors="replace").split()))
    return found


def cut(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of tokens, with a line between two of them and a mark where a document ends. Tokens of one byte have no lines between."""
    single = tokenizer.vocabulary == 257
    if single:
        parts: list[str] = []
        run: list[int] = []
        for token in [*tokens, tokenizer.end]:
            if token == tokenizer.end:
                parts.append(tokenizer.decode(run))
                run = []
            else:
                run.append(token)
        return END.join(parts)
    return BETWEEN.join(END if token in tokenizer.ends else tokenizer.decode([token]) for token in tokens)


def fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the text as is no wider than that."""
    if font.getlength(text) <= width:
        return text
    length = len(text)
    while length and font.getlength(f"{text[:length]}...") > width:
        length = min(length - 1, int(length * 0.9))
    return f"{text[:length]}..."
