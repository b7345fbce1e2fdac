"""The loss of training pictures at held-out noise: every picture as often, the same at every step and on any number of ranks, by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.evaluate.evaluation import evaluation, looked_at
from trainjobs.evaluate.instance import NAME, instance, rows_of
from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.setting import Setting
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.process import cumulative_signal
from trainjobs.objectives.phase import At
from trainjobs.world import World

CPU = torch.device("cpu")
SPEC = Spec.model_validate(
    {
        "diffusion": {"process": {"prediction": "v"}, "sampler": {"steps": 1}},
        "data": {"source": "builtin:digits", "holdout": 0},
        "training": {"steps": 1},
        "evaluation": {"metrics": ["instance"], "samples": 1},
        "compute": {"gpusPerWorker": 0},
    }
)


@dataclass(frozen=True)
class Gathered(World):
    """A rank whose neighbours, before it, have said already what they have."""

    said: list[Any] = field(default_factory=list)

    def gather(self, value: Any) -> list[Any]:
        self.said.append(value)
        return list(self.said)


class Pictures:
    """Some pictures in the data's order; a batch is asked for by positions."""

    def __init__(self, count: int) -> None:
        self.info = DataInfo("image", (1, 4, 4), count, 0)
        self.all = Noise.of(7, 0, "pictures", torch.arange(count)).normal("x", 1, 4, 4)
        self.asked: list[int] = []

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        self.asked += positions.tolist()
        return {"image": self.all[positions]}


def setting(source: Any, world: World, micro: int, network: nn.Module) -> Setting:
    objective = DiffusionObjective(network, DiffusionProcess(prediction="v"), Sampler(steps=1), source.info.shape)
    return Setting(SPEC, source, objective, {"denoiser": network}, world, micro)


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = self.layer(x) * (1.0 + t.view(-1, 1, 1, 1) / 1000)
        return found


def test_it_is_the_mean_of_plain_torch_s_losses() -> None:
    source, network = Pictures(3), Denoiser()
    with torch.no_grad():
        found = instance(setting(source, World(0, 1, CPU), 10, network), At(), Looking())[NAME]
        golden = (5**0.5 - 1) / 2
        rows = torch.arange(255)  # 85 noises and timesteps of each of three
        t = ((rows.double() * golden) % 1.0 * 1000).long()
        eps = Noise.of(0, 0, "heldout", rows).normal("epsilon", 1, 4, 4)
        abar = cumulative_signal("cosine", 1000)[t].view(-1, 1, 1, 1)
        a, s = abar.sqrt().float(), (1 - abar).sqrt().float()
        x = source.all.repeat_interleave(85, dim=0)
        wanted = F.mse_loss(network(a * x + s * eps, t), a * eps - s * x)
    assert found == pytest.approx(wanted.item(), rel=1e-5)
    assert sorted(source.asked) == sorted([0, 1, 2] * 85)


@pytest.mark.parametrize(("count", "rows"), [(1, 256), (3, 255), (100, 200), (256, 256), (1000, 256)])
def test_every_picture_counts_alike(count: int, rows: int) -> None:
    source: Any = Pictures(count)
    given = setting(source, World(0, 1, CPU), 64, Denoiser())
    with torch.no_grad():
        instance(given, At(), Looking())
    assert len(source.asked) == rows_of(count) == rows
    assert {source.asked.count(number) for number in range(min(count, 256))} == {rows // min(count, 256)}
    assert looked_at(SPEC, source, given.objective)[0] == rows  # what an evaluation's time is told by


def test_it_is_the_same_on_any_number_of_ranks_and_at_every_step() -> None:
    network, found = Denoiser(), []
    for size, micro, step in ((1, 64, 0), (1, 7, 500), (3, 20, 9)):
        said: list[Any] = []
        for rank in range(size):
            with torch.no_grad():
                score = instance(setting(Pictures(3), Gathered(rank, size, CPU, said=said), micro, network), At(step), Looking())[NAME]
        found.append(score)
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_it_is_measured_where_it_is_asked_for_with_nothing_held_out() -> None:
    scores, _ = evaluation(setting(Pictures(2), World(0, 1, CPU), 64, Denoiser()), At(), 1)
    assert {*scores} == {NAME}
