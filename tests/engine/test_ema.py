"""The moving average against diffusers' own, and against StyleGAN's formula for half-lives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.job import Spec
from trainjobs.api.training import Ema as Settings
from trainjobs.engine.ema import Ema
from trainjobs.optim.schedule import kept
from trainjobs.world import World

STEPS = 50


class Whole:
    """An engine at stage 0, as far as an average asks it."""

    name, stage = "net", 0

    def __init__(self, module: nn.Module) -> None:
        self.module, self.trained = module, list(module.named_parameters())

    def owned(self, parameter: nn.Parameter) -> Tensor:
        return parameter.detach()


def walk(module: nn.Module, step: int) -> None:
    """The weights of a run that moves."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.8, 0.9999])
def test_a_run_of_fifty_steps_is_that_of_diffusers(decay: float) -> None:
    training_utils = pytest.importorskip("diffusers.training_utils")
    ours, theirs = network(), network()
    engine: Any = Whole(ours)
    average, expected = Ema({"net": engine}, World(0, 1, torch.device("cpu"))), training_utils.EMAModel(theirs.parameters(), decay=decay)
    settings = Settings(decay=decay)
    for step in range(STEPS):
        walk(ours, step)
        walk(theirs, step)
        average.update(kept(settings, step, 64))
        expected.step(theirs.parameters())
        for found, value in zip(average.average.values(), expected.shadow_params, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


def test_without_warm_up_the_random_start_stays() -> None:
    module = network()
    engine: Any = Whole(module)
    average = Ema({"net": engine}, World(0, 1, torch.device("cpu")))
    start = [parameter.detach().clone() for parameter in module.parameters()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for step in range(STEPS):
        average.update(kept(Settings(decay=0.9999, warmup=False), step, 64))
    for found, value in zip(average.average.values(), start, strict=True):
        torch.testing.assert_close(found, value * 0.9999**STEPS)


def test_weights_count_half_after_a_half_life() -> None:
    """As in StyleGAN: ema_beta = 0.5 ** (batch_size / ema_nimg)."""
    settings, module = Settings(half_life=640, warmup=False), nn.Linear(1, 1, bias=False)
    engine: Any = Whole(module)
    nn.init.ones_(module.weight)
    average = Ema({"net": engine}, World(0, 1, torch.device("cpu")))
    nn.init.zeros_(module.weight)
    for step in range(10):
        average.update(kept(settings, step, 64))
    (found,) = average.average.values()
    assert found.item() == pytest.approx(0.5, rel=1e-5)


def test_what_an_update_keeps_is_a_function_of_the_step_alone() -> None:
    """(1 + t) / (10 + t) until that is more than the decay; nothing after the first step."""
    settings = Settings(decay=0.9)
    assert [kept(settings, step, 1) for step in (0, 1, 2, 79, 80, 81, 10_000)] == pytest.approx(
        [0.0, 2 / 11, 3 / 12, 80 / 89, 0.9, 0.9, 0.9]
    )
    assert kept(Settings(decay=0.9, warmup=False), 0, 1) == 0.9


def test_a_half_life_counts_the_images_that_a_discriminator_is_shown() -> None:
    gan = {"gan": {"loss": {"criticSteps": 5}}, "data": {"source": "builtin:digits"}}
    spec = Spec.model_validate({**gan, "training": {"steps": 9, "batch": {"global": 64}, "ema": {"halfLife": 640}}})
    assert spec.samples_per_step == 320
    assert spec.training.ema is not None
    assert spec.training.ema.decays(spec.samples_per_step) ** 2 == pytest.approx(0.5)
