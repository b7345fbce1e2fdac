"""Real samples and reconstructions, to look at: the same whatever the number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from trainjobs.api.job import Spec
from trainjobs.data import open_source
from trainjobs.data.encoded import Encoded
from trainjobs.data.source import DataInfo
from trainjobs.evaluate.setting import Setting
from trainjobs.evaluate.shown import PAIRS, real, reconstructions
from trainjobs.objectives.phase import At, Batch, Samples
from trainjobs.world import World

CPU = torch.device("cpu")


def spec(family: str = "vae", source: str = "builtin:digits", holdout: float = 0.05, samples: int = 5) -> Spec:
    data: dict[str, Any] = {"source": source, "holdout": holdout, "images": {"size": 8, "channels": 1}}
    return Spec.model_validate({family: {}, "data": data, "training": {"steps": 1}, "evaluation": {"samples": samples}})


@pytest.mark.parametrize(
    ("family", "source", "field"),
    [("vae", "builtin:digits", "images"), ("gan", "builtin:ring", "points"), ("language", "builtin:stdlib-text", "texts")],
)
def test_real_samples_are_held_out_ones(family: str, source: str, field: str, tmp_path: Path) -> None:
    if source != "builtin:digits":
        asked = Spec.model_validate(
            {
                family: {"generator": {"architecture": "mlp"}, "discriminator": {"architecture": "mlp"}} if family == "gan" else {},
                "data": {"source": source},
                "training": {"steps": 1},
                "evaluation": {"samples": 5},
            }
        )
    else:
        asked = spec()
    opened = open_source(asked, tmp_path)
    shown = real(opened, asked, 5)
    assert shown is not None
    held = opened.heldout_batch(torch.arange(5))
    assert len(getattr(shown, field)) == 5
    if shown.texts is not None:
        assert opened.info.tokenizer is not None
        assert shown.texts[0] == opened.info.tokenizer.decode(held["tokens"][0, :-1].tolist())
    else:
        assert torch.equal(getattr(shown, field), held["image" if field == "images" else "point"])


def test_without_held_out_samples_the_training_data_are_shown(tmp_path: Path) -> None:
    asked = spec(holdout=0.0)
    shown = real(open_source(asked, tmp_path), asked, 5)
    assert shown is not None
    assert shown.images is not None
    assert shown.images.shape == (5, 1, 8, 8)


def test_what_is_encoded_for_training_is_shown_as_it_was(tmp_path: Path) -> None:
    asked = spec()
    opened = open_source(asked, tmp_path)
    latents = Encoded(opened, lambda rows: {"latent": rows["image"].flatten(1)[:, :3]}, CPU)
    shown, plain = real(latents, asked, 5), real(opened, asked, 5)
    assert shown is not None
    assert plain is not None
    assert torch.equal(cast(Tensor, shown.images), cast(Tensor, plain.images))


class Negative:
    """Gives back the negative; counts its calls."""

    info = DataInfo("image", (1, 2, 2), 100, 45)

    def __init__(self) -> None:
        self.calls = 0

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {"image": indices.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2) / 100}

    def reconstruct(self, batch: Batch) -> Samples:
        self.calls += 1
        return Samples(images=-batch.data["image"])


class Collected(World):
    """Rank 0, which is given what the others have."""

    def collect(self, value: Any) -> list[Any]:
        return [value, *others.pop(0)] if others else [value]


others: list[list[Any]] = []


def share(rank: int, size: int, values: Any) -> tuple[list[Samples], list[Samples]]:
    kept: list[Any] = []

    class Kept(World):
        def collect(self, value: Any) -> list[Any]:
            kept.append(value)
            return []

    reconstructions(Setting(spec(), values, values, {}, Kept(rank, size, CPU), 4), At())
    return kept[0], kept[1]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pairs_belong_together_on_any_number_of_ranks(size: int) -> None:
    values: Any = Negative()
    neighbours = [share(rank, size, values) for rank in range(1, size)]
    others[:] = [[side[part] for side in neighbours] for part in (0, 1)] if neighbours else []
    pairs = reconstructions(Setting(spec(), values, values, {}, Collected(0, size, CPU), 4), At())
    assert pairs is not None
    assert pairs.originals.images is not None
    assert pairs.rebuilt.images is not None
    assert (pairs.originals.images[:, 0, 0, 0] * 100).round().tolist() == list(range(PAIRS))
    assert torch.equal(pairs.rebuilt.images, -pairs.originals.images)
    assert values.calls % size == 0, "every rank makes as many calls"


def test_what_reconstructs_nothing_has_no_pairs() -> None:
    values: Any = Negative()
    assert reconstructions(Setting(spec(), values, cast(Any, object()), {}, World(0, 1, CPU), 4), At()) is None
    values.info = DataInfo("image", (1, 2, 2), 100, 0)
    assert reconstructions(Setting(spec(), values, values, {}, World(0, 1, CPU), 4), At()) is None
