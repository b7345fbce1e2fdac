"""What is wrong with pictures' labels and captions is told by name, with counts, and alike whether pictures are decoded before the first
step or beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import open_source
from trainjobs.noise import Noise

CLASS, TEXT = {"conditioning": {"type": "class"}}, {"conditioning": {"type": "text", "length": 16}}
LABELS = [{"label": "x"}] * 3 + [{"label": None}] + [{"label": "y"}] * 2
CAPTIONS = [{"caption": "x"}] * 3 + [{"caption": " "}] + [{"caption": "y"}] * 2
LONG = [{"caption": "x" * (10 + 4 * number)} for number in range(6)]

# name: what is conditioned on, what is told of each picture, and what is said of it
ROWS: dict[str, tuple[dict[str, Any], list[dict[str, Any]] | None, str]] = {
    "a picture without a label": (CLASS, LABELS, r"samples have no label .*3\.png"),
    "pictures without labels": (CLASS, None, r"the pictures have no labels, and diffusion\.conditioning\.type asks for them"),
    "a picture without a caption": (TEXT, CAPTIONS, r"3\.png.* has no caption|samples have no caption .*1 of 6, the first is 3\.png"),
    "pictures without captions": (TEXT, None, r"the pictures have no captions.*write photo\.txt beside each photo\.png"),
    "captions that are too long": (TEXT, LONG, r"captions are longer than 16 bytes .*4 of .*30 bytes"),
}


def folder(path: Path, told: list[dict[str, Any]] | None) -> Path:
    path.mkdir()
    for number in range(6):
        Image.new("L", (8, 8), 30 * number).save(path / f"{number}.png")
    if told is not None:
        rows = [json.dumps({"file_name": f"{number}.png", **row}) for number, row in enumerate(told)]
        (path / "metadata.jsonl").write_text("\n".join(rows))
    return path


def refused(job: Callable[..., Spec], body: dict[str, Any], path: Path, cache: Path, **data: Any) -> JobError:
    spec = job("diffusion", f"file://{path}", body, **{"images": {"size": 8, "channels": 1}, "holdout": 0, **data})

    def read() -> None:
        source = open_source(spec, cache)
        positions = torch.arange(source.info.length)
        source.batch(positions, 0, Noise.of(0, 0, "train", positions))

    with pytest.raises(JobError) as error:
        read()
    return error.value


@pytest.mark.parametrize("beside", [False, True], ids=["before", "beside"])
@pytest.mark.parametrize("name", ROWS)
def test_what_is_missing_is_named(
    name: str, beside: bool, job: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, told, words = ROWS[name]
    if beside:
        monkeypatch.setattr("trainjobs.data.tables.AT_ONCE", 0)
    error = refused(job, body, folder(tmp_path / "data", told), tmp_path / "cache")
    assert error.code == "GTJ0113"
    assert re.search(words, error.line()), error.line()
    assert error.where
    assert error.why
    assert error.how


def test_a_class_of_one_picture_is_named(job: Callable[..., Spec], tmp_path: Path) -> None:
    path = folder(tmp_path / "data", [{"label": "many"}] * 4 + [{"label": "lone"}, {"label": "sole"}])
    error = refused(job, CLASS, path, tmp_path / "cache")
    assert (error.code, error.what) == ("GTJ0113", "class lone has one picture")
    assert "of 3 classes 2 have one: lone and sole" in error.why
    assert "data.where" in error.how
    assert refused(job, CLASS, folder(tmp_path / "one", [{"label": "x"}] * 6), tmp_path / "cache").what == "there is one class only"
