"""A frozen autoencoder encodes and decodes as diffusers does, in single precision, where it is wanted; and only an AutoencoderKL is one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

from trainjobs.api.errors import JobError

pytestmark = pytest.mark.slow  # diffusers takes seconds to import


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import latent

    return latent.tiny(tmp_path_factory.mktemp("autoencoder"))


def test_it_encodes_and_decodes_as_diffusers_does_whatever_the_precision(folder: Path) -> None:
    from diffusers import AutoencoderKL

    from trainjobs.models.frozen_autoencoder import FrozenAutoencoder

    theirs, ours = AutoencoderKL.from_pretrained(folder), FrozenAutoencoder.of(folder, "here")
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    with torch.no_grad():
        posterior = theirs.encode(x).latent_dist
        z = (posterior.mean - 0.1) * 0.7
        pixels = theirs.decode(z / 0.7 + 0.1).sample
    with torch.autocast("cpu", torch.bfloat16):
        moments, rebuilt = ours.encode(x), ours.decode(z)
    assert moments.dtype == rebuilt.dtype == torch.float32
    assert torch.equal(moments, torch.cat([posterior.mean, posterior.logvar], dim=1))
    assert torch.equal(rebuilt, pixels)
    assert not any(parameter.requires_grad for parameter in ours.whole.parameters())
    assert (ours.factor, ours.channels, ours.latent_channels) == (2, 1, 2)


def test_loading_leaves_the_generator_where_it_was(folder: Path) -> None:
    from trainjobs.models.frozen_autoencoder import FrozenAutoencoder

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    FrozenAutoencoder.of(folder, "here")
    assert torch.equal(torch.rand(4), expected)


def test_it_is_on_the_device_only_while_it_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainjobs.models.frozen_autoencoder import FrozenAutoencoder

    ours = FrozenAutoencoder.of(folder, "here")
    moves: list[str] = []
    monkeypatch.setattr(type(ours.whole), "to", lambda self, device: moves.append(str(device)))
    with ours.on(torch.device("cuda:0")):
        assert moves == ["cuda:0"]
    assert moves == ["cuda:0", "cpu"]


def test_statistics_of_channels_count() -> None:
    from trainjobs.models.frozen_autoencoder import scaling

    shift, scale = scaling({"scaling_factor": 0.5, "latents_mean": [1.0, 2.0], "latents_std": [2.0, 4.0]})
    assert (shift.flatten().tolist(), scale.flatten().tolist()) == ([1.0, 2.0], [0.25, 0.125])
    assert [float(value) for value in scaling({"scaling_factor": 0.5})] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("told", "said"),
    [({"_class_name": "VQModel"}, "no AutoencoderKL"), ({"in_channels": 3}, "cannot be loaded"), (None, "no configuration")],
)
def test_another_thing_is_refused(told: dict[str, object] | None, said: str, folder: Path, tmp_path: Path) -> None:
    from trainjobs.models.frozen_autoencoder import FrozenAutoencoder

    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = {**json.loads((folder / "config.json").read_text()), **(told or {})}
    (tmp_path / "config.json").write_text(json.dumps(config) if told is not None else "{")
    with pytest.raises(JobError, match=said) as refused:
        FrozenAutoencoder.of(tmp_path, "s3://bucket/model")
    assert (refused.value.code, refused.value.where) == ("GTJ0109", "s3://bucket/model")
