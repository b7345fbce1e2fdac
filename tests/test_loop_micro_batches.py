"""Order, noise and seeds of a batch depend on its place in the stream of data, not on who reads which part of it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from trainjobs.api.training import Batch as BatchSpec
from trainjobs.data.sampler import order
from trainjobs.data.source import DataInfo
from trainjobs.loop import due
from trainjobs.monitor.divergence import find
from trainjobs.monitor.meter import Meter
from trainjobs.noise import Noise
from trainjobs.objectives.batches import Batches
from trainjobs.objectives.phase import At, Batch, Phase
from trainjobs.plan.batch import Cut, cut
from trainjobs.state import State
from trainjobs.world import World

pytestmark = pytest.mark.slow  # importing the loop imports DeepSpeed


class Numbers:
    """Sample i is the number i, and one that its noise gives."""

    info = DataInfo("point", (2,), 10, 0)

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        indices = order(positions, seed, self.info.length)
        return {"point": torch.cat([indices[:, None].float(), noise.uniform("augment", 1)], dim=1)}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        raise AssertionError


def never(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    raise AssertionError


def batches(chosen: Cut, world: World) -> Batches:
    return Batches(Numbers(), 5, chosen, world, {}, nullcontext())


def read(workers: int, micro: int, *, phase: str = "D", repetition: int = 0, step: int = 3, samples: int = 24) -> tuple[Tensor, Tensor]:
    """(data, noise) of the global batch, put together from all workers' micro-batches."""
    chosen: Cut = cut(BatchSpec.model_validate({"global": 8, "micro": micro}), workers)
    parts: dict[tuple[int, int], Batch] = {}
    for rank in range(workers):
        world = World(rank, workers, torch.device("cpu"))
        found = batches(chosen, world).turn(Phase(phase, "net", never), repetition, State(step, samples), At(step, samples, 10))
        for turn, (batch, divided_by) in enumerate(found):
            assert (batch.size, divided_by, batch.at) == (micro, chosen.accumulation, At(step, samples, 10))
            parts[turn, rank] = batch
    ordered = [parts[key] for key in sorted(parts)]
    return torch.cat([batch.data["point"] for batch in ordered]), torch.cat([batch.noise.normal("z", 3) for batch in ordered])


@pytest.mark.parametrize(("workers", "micro"), [(1, 1), (1, 4), (2, 4), (2, 1), (4, 2), (8, 1)])
def test_one_batch_however_it_is_read(workers: int, micro: int) -> None:
    data, noise = read(workers, micro)
    whole, whole_noise = read(1, 8)
    assert torch.equal(data, whole)
    assert torch.equal(noise, whole_noise)


@pytest.mark.parametrize("change", [{"phase": "G"}, {"repetition": 1}, {"step": 4}, {"samples": 32}])
def test_noise_differs_by_phase_repetition_step_and_sample(change: dict[str, object]) -> None:
    assert not torch.isclose(read(1, 8)[1], read(1, 8, **change)[1]).any()  # type: ignore[arg-type]


def test_an_epoch_shows_every_sample_once() -> None:
    seen = torch.cat([read(2, 4, samples=start)[0][:, 0] for start in range(0, 40, 8)])
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10].int().tolist()) == list(range(10))


def test_dropout_is_seeded_by_the_place_in_the_stream() -> None:
    world, chosen = World(0, 1, torch.device("cpu")), Cut(1, 4, 2)
    draws = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        turn = batches(chosen, world).turn(Phase("p", "net", never), 0, State(1, 8), At(1, 8, 10))
        draws.append([torch.rand(1).item() for _ in turn])
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 2


def test_meter_takes_means() -> None:
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add({"loss": torch.tensor(value)})
    meter.add({"kl": torch.tensor(4.0)})
    meter.stepped(State(1, 8), {})
    assert meter.take() == {"kl": 4.0, "loss": 3.0}
    meter.clear()
    assert meter.take() == {}


@pytest.mark.parametrize(("step", "every", "expected"), [(10, 5, True), (11, 5, False), (10, None, False), (1, 1, True)])
def test_due(step: int, every: int | None, expected: bool) -> None:
    assert due(step, every) is expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_step_that_is_not_finite_is_found_among_those_since_the_last_talk(value: float) -> None:
    meter, world = Meter(), World(0, 1, torch.device("cpu"))
    for step, kl in ((5, 1.0), (6, value), (7, 2.0)):
        meter.add({"loss": torch.tensor(1.0)})
        meter.add({"loss": torch.tensor(1.0), "kl": torch.tensor(kl)})
        meter.stepped(State(step, 8 * step), {})
    found = find(meter.take(), meter, {}, State(7, 56), world, save=False)
    assert found is not None
    assert (found.what, found.step, found.samples) == ("kl not finite", 6, 48)
    meter.clear()
    assert find({"loss": 1.0}, meter, {}, State(8, 64), world, save=False) is None
