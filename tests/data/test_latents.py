"""Latents that are kept are those that are encoded anew, of whatever source, and a picture that has none is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import open_source
from trainjobs.data.latents import TOGETHER, CachedLatents, EncodedLatents, drawn, encoded, tables
from trainjobs.data.source import Numbered, Source
from trainjobs.noise import Noise

CPU = torch.device("cpu")


class Halving:
    """Means are the picture's, halved, of two channels; the variance is that of how bright it is. Knows how many came together."""

    shift, scale = torch.tensor(0.25), torch.tensor(2.0)

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def encode(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        small = torch.nn.functional.avg_pool2d(images, 2)[:, :1]
        return torch.cat([small, -small, small, small / 2], dim=1)


def spec(source: str, size: int = 8, **more: object) -> Spec:
    told = {"architecture": "conv", "channels": 4}
    data = {"source": source, "images": {"size": size, "channels": 1, "augment": ["horizontalFlip"]}, "holdout": 0.25, **more}
    return Spec.model_validate({"vae": {"network": told}, "data": data, "training": {"steps": 1}})


def folder(path: Path, count: int = 20, bad: int | None = None) -> str:
    path.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8) if number != bad else np.zeros((8, 8), np.uint8)
        Image.fromarray(pixels).save(path / f"{number:02}.png")
    return f"file://{path}"


def both(source: Source, cache: Path) -> tuple[CachedLatents, EncodedLatents]:
    assert isinstance(source, Numbered)
    encoder = Halving()
    train, flipped, held = tables(source, encoder, cache / "latents", CPU, flips=True, say=lambda words: None)
    assert flipped is not None
    kept = CachedLatents(source, encoder, source.info, CPU, train, flipped, held)
    return kept, EncodedLatents(source, encoder, source.info, CPU, source)


def sources(tmp_path: Path) -> dict[str, Source]:
    """A table, a stream of files, and a mixture of both kinds of folders."""
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other", 12)
    told = {**spec(one).data.model_dump(mode="json", by_alias=True, exclude_none=True), "sources": [{"source": one}, {"source": other}]}
    told.pop("source")
    return {
        "built in": open_source(spec("builtin:digits"), tmp_path / "cache"),
        "table": open_source(spec(one), tmp_path / "cache"),
        "stream": open_source(spec(one, onBadSample="skip"), tmp_path / "cache"),
        "mixture": open_source(Spec.model_validate({"vae": {}, "data": told, "training": {"steps": 1}}), tmp_path / "cache"),
    }


def test_kept_latents_are_those_that_are_encoded_anew_of_every_source(tmp_path: Path) -> None:
    for name, source in sources(tmp_path).items():
        (tmp_path / name).mkdir()
        kept, anew = both(source, tmp_path / name)
        for start in (0, 7, source.info.length - 3):
            positions = torch.arange(start, start + 11)
            noise = Noise.of(3, start, "train", positions)
            ours, theirs = kept.batch(positions, 3, noise), anew.batch(positions, 3, noise)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[field], theirs[field]) for field in ours), name
        rows = torch.arange(source.info.heldout)
        assert torch.equal(kept.heldout_batch(rows)["image"], anew.heldout_batch(rows)["image"]), name


def test_each_step_draws_anew_and_shift_and_scale_count(tmp_path: Path) -> None:
    moments = torch.randn(5, 4, 2, 2)
    positions = torch.arange(5)
    first, second = (drawn(Halving(), moments, Noise.of(0, step, "train", positions)) for step in (0, 1))
    assert not torch.equal(first, second)
    mean, logvar = moments.chunk(2, dim=1)
    eps = Noise.of(0, 0, "train", positions).normal("latents", 2, 2, 2)
    torch.testing.assert_close(first, (torch.distributions.Normal(mean, logvar.exp().sqrt()).icdf(torch.special.ndtr(eps)) - 0.25) * 2.0)


def test_pictures_pass_in_groups_of_one_size() -> None:
    encoder = Halving()
    images = torch.randn(TOGETHER * 2 + 3, 1, 8, 8)
    found = encoded(encoder, images)
    assert encoder.sizes == [TOGETHER] * 3
    assert torch.equal(found, Halving().encode(images))


def test_tables_are_read_again_and_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(spec("builtin:digits"), tmp_path / "cache")
    both(source, tmp_path)
    monkeypatch.setattr(Halving, "encode", lambda self, images: pytest.fail("it is encoded again"))
    both(source, tmp_path)


class Blind(Halving):
    """Divides by how much there is in a picture."""

    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images) / (images + 1.0).abs().sum(dim=(1, 2, 3), keepdim=True).bool()


@pytest.mark.parametrize("more", [{}, {"onBadSample": "skip"}])
def test_a_picture_whose_latents_are_no_numbers_is_named(more: dict[str, str], tmp_path: Path) -> None:
    source = open_source(spec(folder(tmp_path / "bad", bad=5), **more), tmp_path / "cache")
    assert isinstance(source, Numbered)
    positions = torch.arange(source.info.length)
    anew = EncodedLatents(source, Blind(), source.info, CPU, source)
    held = torch.arange(source.info.heldout)
    names = [*source.names(torch.arange(source.info.length), held=False), *source.names(held, held=True)]
    assert sum(name.endswith("05.png") for name in names) == 1
    with pytest.raises(JobError, match=r"latents of .*05\.png are no numbers") as refused:
        tables(source, Blind(), tmp_path / "latents", CPU, flips=False, say=lambda words: None)
    assert (refused.value.code, bool(refused.value.how)) == ("GTJ0113", True)
    with pytest.raises(JobError, match=r"05\.png"):
        _ = anew.batch(positions, 0, Noise.of(0, 0, "train", positions)), anew.heldout_batch(held)
