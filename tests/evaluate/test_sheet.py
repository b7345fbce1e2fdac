"""The first samples of the data, as pictures and as texts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from trainjobs.api.job import Spec
from trainjobs.data import open_source
from trainjobs.data.source import DataInfo
from trainjobs.data.survey import Column, Survey
from trainjobs.data.tokens import ByteTokenizer, train_bpe
from trainjobs.evaluate.sheet import CELL, GAP, LINE, Sheet, cut, first, fitted, sheet, tell, under
from trainjobs.noise import Noise
from trainjobs.report.data import data


def spec(family: str, source: str, **more: Any) -> Spec:
    return Spec.model_validate({family: {}, "data": {"source": source, **more}, "training": {"steps": 1, "seed": 3}})


def test_pictures_are_those_of_the_first_steps(tmp_path: Path) -> None:
    job = spec("vae", "builtin:digits", images={"size": 8, "channels": 1, "augment": ["horizontalFlip"]})
    source = open_source(job, tmp_path)
    made = first(source, 3).picture
    assert made is not None
    positions = torch.arange(64)
    rows = source.batch(positions, 3, Noise.of(3, 0, "data", positions))["image"]
    for number in (0, 9, 63):
        x, y = GAP + number % 8 * (CELL + GAP), GAP + number // 8 * (CELL + GAP)
        shown = made.crop((x, y, x + CELL, y + CELL)).convert("L").resize((8, 8), Image.Resampling.NEAREST)
        assert torch.equal(torch.tensor(list(shown.tobytes())).view(8, 8), ((rows[number, 0] + 1) * 127.5).round().long())


@dataclass
class Labelled:
    info: DataInfo = field(default_factory=lambda: DataInfo("image", (3, 16, 16), 5, 0, classes=("cat", "dog")))

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        caption = torch.full((len(positions), 300), 256)
        caption[0, :5] = torch.tensor(list(b"a\ndog"))
        caption[1] = 120
        return {"image": torch.zeros(len(positions), 3, 16, 16), "label": positions % 3, "caption": caption}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        raise AssertionError


def test_labels_and_captions_stand_under_them(tmp_path: Path) -> None:
    source = Labelled()
    made = first(source, 0).picture
    assert made is not None
    assert made.size == (5 * (CELL + GAP) + GAP, CELL + GAP + 2 * LINE + GAP), "no more columns than samples"
    below = made.crop((0, GAP + CELL, made.width, made.height)).convert("L")
    assert below.getextrema()[0] < 128, "something is written"
    batch = source.batch(torch.arange(3), 0, Noise.of(0, 0, "data", torch.arange(3)))
    assert under(batch, ["cat", "dog"]) == [["cat", "a dog"], ["dog", "x" * 300], ["class 2", ""]]
    assert Sheet(made).save(tmp_path / "new" / "data") == tmp_path / "new" / "data.png"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data.png"]


def test_lines_are_no_wider_than_the_picture() -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size=11)
    assert fitted("a dog", 96, font) == "a dog"
    cut_off = fitted("a dog " * 50, 96, font)
    assert cut_off.endswith("...")
    assert 60 < font.getlength(cut_off) <= 96


def test_points(tmp_path: Path) -> None:
    made = first(open_source(spec("gan", "builtin:ring"), tmp_path), 0).picture
    assert made is not None
    assert made.width == made.height


def test_texts_are_cut_into_tokens(tmp_path: Path) -> None:
    job = spec("language", "builtin:stdlib-text")
    found = first(open_source(job, tmp_path), 3)
    assert len(found.texts) == 8
    path = found.save(tmp_path / "data")
    assert path.name == "data.txt"
    assert path.read_text(encoding="utf-8").startswith(f"--- 1 ---\n{found.texts[0]}")


def test_boundaries_and_ends() -> None:
    tokenizer = train_bpe(["the cat the cat"], 300)
    tokens = [*tokenizer.encode("the cat"), tokenizer.end, *tokenizer.encode("the")]
    shown = cut(tokens, tokenizer)
    assert shown.replace("│", "").replace("▮", "") == "the catthe"
    assert shown.count("▮") == 1
    assert shown.count("│") == len(tokens) - 1
    assert cut([*b"caf\xc3\xa9", 256, *b"x"], ByteTokenizer()) == "café▮x"


def test_a_sheet_without_lines() -> None:
    assert sheet(torch.zeros(3, 1, 128, 128), []).size == (3 * (128 + GAP) + GAP, 128 + 2 * GAP)


def test_a_run_tells_what_its_data_is(tmp_path: Path) -> None:
    told = Survey("s3://bucket/x", ("text",), (Column("é", "text", "text", "a"),), 5, 1, 2, 3)
    tell(tmp_path / "samples", Labelled(), 0, [told])
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["data.json", "data.png"]
    assert json.loads((tmp_path / "samples" / "data.json").read_text(encoding="utf-8")) == [told.as_data()]
    shown = data(tmp_path / "samples")
    assert shown is not None
    assert shown["picture"].startswith("data:image/png;base64,")
    assert shown["sources"][0]["counts"] == "5 trained on, 1 held out, 2 files"
