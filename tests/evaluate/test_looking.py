"""What an evaluation is at, heard while it goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.evaluate.evaluation import evaluation, looked_at
from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.setting import Setting
from trainjobs.objectives.phase import At, Batch, Samples, over
from trainjobs.world import World

CPU = torch.device("cpu")


def spec(passes: int, **more: Any) -> Spec:
    return Spec.model_validate(
        {
            "diffusion": {"sampler": {"steps": passes}},
            "data": {"source": "builtin:digits"},
            "training": {"steps": 1},
            "compute": {"gpusPerWorker": 0},
            **more,
        }
    )


class Denoiser:
    """An objective that draws in so many passes of its network."""

    info = DataInfo("image", (1, 2, 2), 10, 6)
    highest_stage = 3
    phases = ()

    def __init__(self, passes: int) -> None:
        self.network, self.passes = nn.Identity(), passes

    def heldout_batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"image": torch.zeros(len(rows), 1, 2, 2)}

    def heldout(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        return {"loss": over(self.network(batch.data["image"]).mean(), batch.size)}

    def sample(self, batch: Batch) -> Samples:
        x = torch.zeros(batch.size, 1, 2, 2)
        for _ in range(self.passes):
            x = self.network(x)
        return Samples(images=x)


def heard(passes: int, samples: int, micro: int, rank: int = 0, size: int = 1) -> list[str]:
    """What is said, each word once."""
    denoiser: Any = Denoiser(passes)
    said: list[str] = []
    world = World(rank, size, CPU)
    if size > 1:
        object.__setattr__(world, "gather", lambda value: [value])
        object.__setattr__(world, "collect", lambda value: [value])
    networks = {"denoiser": denoiser.network}
    evaluation(Setting(spec(passes), denoiser, denoiser, networks, world, micro, said.append), At(), samples)
    assert not denoiser.network._forward_pre_hooks, "nothing listens any more"
    return list(dict.fromkeys(said))


def test_words_of_held_out_samples_and_of_drawing() -> None:
    drawing = [f"drawing 5 samples, {done}/5" for done in (0, 2, 4)]
    assert heard(passes=2, samples=5, micro=4) == ["evaluating 0/6", "evaluating 4/6", *drawing]


def test_a_single_turn_of_many_passes_is_heard_pass_by_pass() -> None:
    said = [words for words in heard(passes=50, samples=64, micro=64) if words.startswith("drawing")]
    assert said[:3] == ["drawing 64 samples, 0/64", "drawing 64 samples, 1/64", "drawing 64 samples, 2/64"]
    assert "drawing 64 samples, 23/64" in said
    assert len(said) == 50


@pytest.mark.parametrize(("rank", "size"), [(0, 2), (1, 2), (3, 4)])
def test_every_rank_hears_of_all_of_them_also_one_without_a_row(rank: int, size: int) -> None:
    said = heard(passes=4, samples=2, micro=1, rank=rank, size=size)
    assert said[-1] == "drawing 2 samples, 1/2"
    assert said[0] == "evaluating 0/6"


def test_more_passes_than_were_counted_do_not_count_as_more_rows() -> None:
    looking = Looking(passes=2)
    said: list[str] = []
    looking.tell = said.append
    network = nn.Identity()
    with looking.listening({"network": network}):
        for _ in looking.turns("drawing 3 samples,", 3, 4, World(0, 1, CPU), 2):
            for _ in range(9):
                network(torch.zeros(1))
    assert said[-1] == "drawing 3 samples, 3/3"
    network(torch.zeros(1))
    assert len(said) == 10


def test_how_many_samples_an_evaluation_looks_at() -> None:
    denoiser: Any = Denoiser(1)
    assert looked_at(spec(1), denoiser, denoiser) == (6, 0)


def test_no_samples_are_drawn_where_none_are_wanted() -> None:
    assert heard(passes=2, samples=0, micro=6) == ["evaluating 0/6"]
