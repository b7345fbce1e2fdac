"""What pictures are of reaches the batch where a model is conditioned on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import Source, open_source, preflight
from trainjobs.data.shapes import COLOURS, SHAPES, captions, draw
from trainjobs.evaluate.prompts import words
from trainjobs.noise import Noise


def spec(source: str, kind: str, **data: Any) -> Spec:
    conditioning = {"type": kind} | ({"length": 24} if kind == "text" else {})
    given = {"source": source, "images": {"size": 8}, "holdout": 0.2, **data}
    training = {"steps": 1, "batch": {"global": 4}}
    return Spec.model_validate({"diffusion": {"conditioning": conditioning}, "data": given, "training": training})


def batch(source: Source) -> dict[str, torch.Tensor]:
    positions = torch.arange(source.info.length)
    return source.batch(positions, 0, Noise(0, positions))


def test_digits_have_labels(tmp_path: Path) -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    source = open_source(spec("builtin:digits", "class", images={"size": 8, "channels": 1}), tmp_path)
    assert source.info.classes == tuple("0123456789")
    found = batch(source)
    assert found["label"].dtype == torch.int64
    true = sklearn.load_digits()
    by_pixels = {tuple(image.flatten().tolist()): int(label) for image, label in zip(true.images, true.target, strict=True)}
    pixels = ((found["image"][:50] + 1) * 8).round().flatten(1).tolist()
    assert [by_pixels[tuple(row)] for row in pixels] == found["label"][:50].tolist()


def test_shapes_have_captions_that_their_pixels_bear_out() -> None:
    told = captions(3)[:60]
    pictures = draw(torch.arange(60), 32)
    rgb = {"red": (1, 0, 0), "yellow": (1, 1, 0), "green": (0, 1, 0), "cyan": (0, 1, 1), "blue": (0, 0, 1), "magenta": (1, 0, 1)}
    for number, caption in enumerate(told):
        _, colour, shape = caption.split()
        assert shape == SHAPES[number % 3]
        seen = pictures[number].flatten(1)
        brightest = seen[:, (seen.amax(0) - seen.amin(0)).argmax()]
        nearest = min(COLOURS, key=lambda name: float((brightest - torch.tensor(rgb[name])).abs().sum()))
        assert nearest == colour
    assert captions(1)[:3] == ["a circle", "a square", "a triangle"]


def test_shapes_reach_the_batch(tmp_path: Path) -> None:
    source = open_source(spec("builtin:shapes", "text", images={"size": 8}, holdout=0.5), tmp_path)
    found = batch(source)
    assert found["caption"].shape == (source.info.length, 24)
    assert set(words(found, ())) <= set(captions(3))
    labelled = open_source(spec("builtin:shapes", "class", images={"size": 8}, holdout=0.5), tmp_path)
    assert labelled.info.classes == SHAPES
    assert "caption" not in batch(labelled)


def test_without_conditions_a_batch_has_pictures_alone(tmp_path: Path) -> None:
    plain = Spec.model_validate(
        {"diffusion": {}, "data": {"source": "builtin:shapes", "images": {"size": 8}}, "training": {"steps": 1, "batch": {"global": 4}}}
    )
    assert [*open_source(plain, tmp_path).batch(torch.arange(2), 0, Noise(0, torch.arange(2)))] == ["image"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in folders of their class, each with its caption beside it."""
    for colour, value in (("dark", 10), ("light", 200)):
        (tmp_path / "data" / colour).mkdir(parents=True)
        for number in range(6):
            image = Image.new("RGB", (8, 8), (value, value, number))
            image.save(tmp_path / "data" / colour / f"{number}.png")
            (tmp_path / "data" / colour / f"{number}.txt").write_text(f"{colour} number {number}")
    return tmp_path / "data"


def test_captions_beside_pictures_reach_the_batch_unasked(folder: Path, tmp_path: Path) -> None:
    found = batch(open_source(spec(f"file://{folder}", "text"), tmp_path / "cache"))
    for image, caption in zip(found["image"], words(found, ()), strict=True):
        assert caption == f"{'dark' if image[0, 0, 0] < 0 else 'light'} number {int(((image[2, 0, 0] + 1) * 127.5).round())}"


def test_folders_as_classes(folder: Path, tmp_path: Path) -> None:
    source = open_source(spec(f"file://{folder}", "class", labels="folder"), tmp_path / "cache")
    assert source.info.classes == ("dark", "light")
    found = batch(source)
    assert found["label"].tolist() == [int(image[0, 0, 0] > 0) for image in found["image"]]


def test_pictures_without_what_is_asked_for_are_refused_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no labels") as caught:
        preflight(spec(f"file://{folder}", "class"))
    assert caught.value.code == "GTJ0113"
    assert "data.labels: folder" in str(caught.value.how)
    with pytest.raises(JobError, match="no captions") as caught:
        open_source(spec("builtin:digits", "text", images={"size": 8, "channels": 1}), tmp_path)
    assert caught.value.code == "GTJ0113"


def test_captions_longer_than_the_encoder_reads_are_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "dark" / "3.txt").write_text("a very long caption that goes on and on")
    with pytest.raises(JobError, match="longer than 24 bytes") as caught:
        open_source(spec(f"file://{folder}", "text"), tmp_path / "cache")
    assert caught.value.code == "GTJ0113"
    assert "1 of 12" in str(caught.value.why)
    assert "39 bytes" in str(caught.value.why)
    assert "diffusion.conditioning.length to 39" in str(caught.value.how)
