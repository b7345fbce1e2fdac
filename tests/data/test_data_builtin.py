"""The sources that need no files."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.positions import SEED, shown
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import digits, documents, open_source, preflight, ring, shapes
from trainjobs.data.pixels import scaled
from trainjobs.noise import Noise, mix

Make = Callable[..., Spec]


def noise(count: int, seed: int = 0) -> Noise:
    return Noise.of(seed, 0, "train", torch.arange(count))


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    ours = digits.load(8)
    assert ours.shape == (1797, 1, 8, 8)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal((ours[:, 0] + 1) * 8, load_digits().images)


def test_without_scikit_learn_digits_say_what_to_install(monkeypatch: pytest.MonkeyPatch, job: Make) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"GTJ0113 .*pip install scikit-learn"):
        preflight(job("vae", "builtin:digits"))


def test_larger_digits_keep_their_range_and_their_mean() -> None:
    small, large = digits.load(8), digits.load(32)
    assert large.shape == (1797, 1, 32, 32)
    assert large.min() >= -1
    assert large.max() <= 1
    assert large.mean() == pytest.approx(small.mean(), abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("source", ["builtin:digits", "builtin:shapes"])
def test_images_have_the_shape_and_range_they_say(source: str, channels: int, job: Make, tmp_path: Path) -> None:
    opened = open_source(job("vae", source, images={"size": 16, "channels": channels}), tmp_path)
    assert opened.info.shape == (channels, 16, 16)
    for batch in (opened.batch(shown(opened, torch.arange(5)), SEED, noise(5)), opened.heldout_batch(torch.arange(5))):
        assert batch["image"].shape == (5, channels, 16, 16)
        assert batch["image"].dtype == torch.float32
        assert batch["image"].min() >= -1
        assert batch["image"].max() <= 1
        assert batch["image"].std() > 0.1


@pytest.mark.parametrize("holdout", [0, 0.0001, 0.05, 0.5])
def test_the_share_held_out_is_kept_and_apart(holdout: float, job: Make, tmp_path: Path) -> None:
    opened = open_source(job("vae", "builtin:digits", images={"size": 8}, holdout=holdout), tmp_path)
    info = opened.info
    assert info.length + info.heldout == 1797
    assert info.heldout == (max(1, round(1797 * holdout)) if holdout else 0)
    train = opened.batch(shown(opened, torch.arange(info.length)), SEED, noise(info.length))["image"][:, 0]
    held = opened.heldout_batch(torch.arange(info.heldout))["image"][:, 0]
    both = torch.cat([train, held]).flatten(1)
    everything = torch.from_numpy(digits.load(8)).flatten(1)
    assert sorted(both.tolist()) == sorted(everything.tolist())


def test_shapes_are_a_function_of_their_number() -> None:
    one = shapes.draw(torch.tensor([5, 900]), 32)
    two = shapes.draw(torch.tensor([900]), 32)
    assert torch.equal(one[1], two[0])
    assert not torch.equal(one[0], one[1])
    assert one.min() >= 0
    assert one.max() <= 1


def test_the_three_shapes_have_the_areas_of_their_formulas() -> None:
    """Measured on a large picture: pi r^2, and for a polygon of n sides and apothem a, n a^2 tan(pi / n)."""
    indices = torch.arange(3)
    radius = 0.12 + 0.13 * Noise(mix("builtin:shapes"), indices).uniform("radius")
    image = shapes.draw(indices, 512)
    ground = image[:, :, :1, :1]
    brightest = (image - ground).amax((1, 2, 3), keepdim=True)
    covered = ((image - ground) / brightest).amax(1).mean((1, 2))  # the strongest channel is 0 on the ground and 1 on the shape
    expected = [math.pi, 4 * 0.8**2 * math.tan(math.pi / 4), 3 * 0.6**2 * math.tan(math.pi / 3)] * radius.double().numpy() ** 2
    assert covered.tolist() == pytest.approx(expected.tolist(), rel=0.01)


def test_shapes_lie_within_the_picture() -> None:
    images = shapes.draw(torch.arange(300), 32)
    edge = torch.cat([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], dim=-1)
    assert (edge.amax(-1) - edge.amin(-1)).max() < 1e-6


def test_grey_shapes_are_pillows_grey() -> None:
    for colour, grey in islice(zip(shapes.rows(16, 3), shapes.rows(16, 1), strict=True), 20):
        expected = np.asarray(Image.fromarray(colour.transpose(1, 2, 0)).convert("L"), dtype=int)
        assert abs(grey[0].astype(int) - expected).max() <= 1


def test_points_lie_around_their_modes(job: Make, tmp_path: Path) -> None:
    points = ring.draw(torch.arange(80_000))
    offsets = points - torch.tensor(ring.MODES)[torch.arange(80_000) % 8]
    assert torch.linalg.norm(torch.tensor(ring.MODES), dim=1).tolist() == pytest.approx([2.0] * 8)
    assert offsets.mean(0).abs().max() < 5 * ring.SIGMA / math.sqrt(80_000)
    assert offsets.std(0).tolist() == pytest.approx([ring.SIGMA] * 2, rel=0.02)
    info = open_source(job("gan", "builtin:ring"), tmp_path).info
    assert (info.kind, info.shape, info.modes) == ("point", (2,), ring.MODES)
    assert info.length + info.heldout == ring.COUNT


def test_points_are_a_function_of_their_number(job: Make, tmp_path: Path) -> None:
    opened = open_source(job("gan", "builtin:ring"), tmp_path)
    indices = torch.tensor([7, 7, 60_000])
    batch = opened.batch(shown(opened, indices), SEED, noise(3))["point"]
    assert batch.shape == (3, 2)
    assert torch.equal(batch[0], batch[1])
    assert torch.equal(batch, opened.batch(shown(opened, indices), SEED, noise(3, seed=9))["point"])


def test_the_standard_librarys_text_is_source_that_parses(job: Make, tmp_path: Path) -> None:
    files = documents.stdlib_files()
    names = [file.name for file in files]
    assert names == sorted(names)
    assert {"ast.py", "json.py", "textwrap.py"} & set(names) == {"ast.py", "textwrap.py"}
    total = sum(file.size for file in files)
    assert 2e6 < total < 8e6
    ast.parse({name: text for name, text, _ in documents.stdlib().read()}["ast.py"])
    info = open_source(job("language", "builtin:stdlib-text"), tmp_path).info
    assert info.length + info.heldout == (total + len(files) - 1) // 128  # bytes, and an end for each


def test_every_byte_is_scaled_as_the_formula_says() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(scaled(levels), levels.float() / 127.5 - 1.0)
    assert scaled(levels)[[0, 255]].tolist() == [-1.0, 1.0]
