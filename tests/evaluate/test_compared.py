"""What pictures are compared with is computed once, by all ranks, and kept over restarts; what is not well with it is told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.data.test_latents import both
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import open_source
from trainjobs.evaluate.compared import Compared
from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.quality import Quality
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Samples
from trainjobs.world import World

ALONE = World(0, 1, torch.device("cpu"))
ALL = ["fid", "kid", "is", "precision", "recall"]


def spec(metrics: list[str] | None = None, data: dict[str, Any] | None = None, seed: int = 0, **evaluation: Any) -> Spec:
    return Spec.model_validate(
        {
            "vae": {},
            "data": {"source": "builtin:digits", "images": {"size": 16, "channels": 1}, **(data or {})},
            "training": {"steps": 10, "seed": seed},
            "evaluation": {"metrics": metrics or ALL, "fidSamples": 90, **evaluation},
        }
    )


def opened(asked: Spec, cache: Path, told: list[JobError] | None = None, data: str = "digest") -> Compared:
    source = open_source(asked, cache / "data")
    found = Compared.open(asked, source, ALONE, cache, data, (told if told is not None else []).append)
    assert found is not None
    return found


def test_without_such_scores_nothing_is_opened(tmp_path: Path) -> None:
    asked = spec(["loss"], fidSamples=None)
    assert Compared.open(asked, open_source(asked, tmp_path), ALONE, tmp_path, "") is None


def test_real_features_are_kept_by_what_they_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(spec(), tmp_path)
    first.prepare(32, Looking())
    assert first.path.exists()
    again = opened(spec(), tmp_path)
    assert again.path == first.path
    monkeypatch.setattr(again, "source", None)
    again.prepare(32, Looking())
    made = torch.rand(90, 64)
    assert again.figures(made, None) == first.figures(made, None)
    others = [
        opened(spec(fidSamples=91), tmp_path),
        opened(spec(data={"holdout": 0.2}), tmp_path),
        opened(spec(), tmp_path, data="another"),
    ]
    assert len({first.path, *(other.path for other in others)}) == 4
    assert not any(other.path.exists() for other in others)


@pytest.mark.parametrize("kept", [True, False])
def test_of_latents_the_pictures_are_compared_that_they_are_of(kept: bool, tmp_path: Path) -> None:
    asked = spec(data={"images": {"size": 8, "channels": 1, "augment": ["horizontalFlip"]}})
    source = open_source(asked, tmp_path / "data")
    cached, anew = both(source, tmp_path)
    found = Compared.open(asked, cached if kept else anew, ALONE, tmp_path / "latents", "digest")
    assert found is not None
    (tmp_path / "latents").mkdir(exist_ok=True)
    found.prepare(32, Looking())
    pictures = opened(asked, tmp_path)
    pictures.prepare(32, Looking())
    assert torch.equal(load_file(found.path)["features"], load_file(pictures.path)["features"])


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    first = opened(spec(), tmp_path)
    first.prepare(32, Looking())
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:100])
    opened(spec(), tmp_path).prepare(32, Looking())
    assert first.path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    asked = spec()
    found = Compared.open(asked, open_source(asked, tmp_path / "data"), ALONE, tmp_path / "file" / "below", "")
    assert found is not None
    found.prepare(32, Looking())
    assert "fid/digits" in found.figures(torch.rand(90, 64), None)


@pytest.mark.slow
def test_real_pictures_are_the_same_for_every_seed_and_cut(tmp_path: Path) -> None:
    found = []
    for number, (seed, micro) in enumerate([(0, 8), (7, 90)]):
        one = opened(spec(seed=seed), tmp_path / str(number))
        one.prepare(micro, Looking())
        assert one._real is not None
        found.append(one._real)
    assert found[0].shape == (90, 64)
    assert torch.allclose(*found, atol=1e-5)


def test_few_pictures_are_told_once(tmp_path: Path) -> None:
    told: list[JobError] = []
    few = spec(fidSamples=20)
    opened(few, tmp_path, told).prepare(32, Looking())
    assert [(error.code, error.where) for error in told] == [("GTJ0108", "spec.evaluation.fidSamples")]
    assert "20 generated and 20 real pictures, and of 64 features" in str(told[0])
    opened(few, tmp_path, told).prepare(32, Looking())
    assert len(told) == 1, "after a restart it is known"
    opened(spec(fidSamples=20, metrics=["kid"]), tmp_path, told).prepare(32, Looking())
    opened(spec(fidSamples=65), tmp_path, told).prepare(32, Looking())
    assert len(told) == 1, "kid has no bias, and more than features are enough"


def test_the_datas_own_pictures_are_as_good_as_they_can_be(tmp_path: Path) -> None:
    asked = spec(fidSamples=400)
    compared = opened(asked, tmp_path)
    compared.prepare(64, Looking())
    quality = Quality(compared, At(10, 0, 10))
    images = compared.source.batch(torch.arange(400), 0, Noise.of(0, 0, "", torch.arange(400)))["image"]
    for piece in images.split(64):
        quality.add(None, Samples(images=piece))
    found = quality.result(ALONE)
    assert {*found} == {f"{word}/digits" for word in ALL}
    assert found["fid/digits"] < 1e-6
    assert found["precision/digits"] == found["recall/digits"] == 1.0
    assert found["is/digits"] > 7.0
    assert found["kid/digits"] < 0.0, "the pictures themselves are nearer than others of their kind would be"


def test_figures_come_late_unless_something_is_decided_by_them(tmp_path: Path) -> None:
    asked, last = spec(), At(10, 0, 10)
    decided = spec(["loss"])
    decided = decided.model_copy(
        update={"training": decided.training.model_validate({"steps": 10, "earlyStopping": {"metric": "fid/digits"}})}
    )
    for which, at, late in ((asked, At(5, 0, 10), True), (asked, last, False), (decided, At(5, 0, 10), False)):
        compared = opened(which, tmp_path)
        compared.prepare(64, Looking())
        quality = Quality(compared, at)
        quality.add(None, Samples(images=torch.zeros(90, 1, 16, 16)))
        found = quality.result(ALONE)
        assert ("fid/digits" in found) != late
        assert [step for step, _ in compared.later.all()] == ([5] if late else [])
    assert {*found} == {"fid/digits"}, "what is not asked for is not measured"


@pytest.mark.parametrize(
    ("metrics", "family", "data", "code"),
    [(["fid"], "custom", {"source": "builtin:ring"}, "GTJ0108")],
)
def test_what_is_no_picture_is_refused(metrics: list[str], family: str, data: dict[str, Any], code: str, tmp_path: Path) -> None:
    given = {"objective": "mine:objective"}
    asked = Spec.model_validate({family: given, "data": data, "training": {"steps": 1}, "evaluation": {"metrics": metrics}})
    with pytest.raises(JobError) as raised:
        Compared.open(asked, open_source(asked, tmp_path), ALONE, tmp_path, "")
    assert raised.value.code == code
    assert "point" in raised.value.why
