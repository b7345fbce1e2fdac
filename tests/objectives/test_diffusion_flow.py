"""Flow matching against diffusers' scheduler, and a flow that is known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.flow import FlowObjective, times
from trainjobs.objectives.phase import Batch

SHAPE = (1, 8, 8)
# Quantiles 0.1, 0.25, 0.5, 0.75 and 0.9 of diffusers 0.42.1's compute_density_for_timestep_sampling("logit_normal", 10_000_000,
# logit_mean=0, logit_std=1), by hand: three digits hold.
LOGIT_NORMAL = [0.2173, 0.3376, 0.5000, 0.6626, 0.7827]


class Denoiser(nn.Module):
    """Any function of x and t; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append((x, t))
        result: Tensor = torch.tanh(self.conv(x) + 0.001 * t.view(-1, 1, 1, 1))
        return result


def objective(denoiser: nn.Module, steps: int = 10, **fields: Any) -> FlowObjective:
    return FlowObjective(denoiser, DiffusionProcess.model_validate({"prediction": "flow", **fields}), Sampler(steps=steps), SHAPE)


def batch(count: int = 16, start: int = 0, step: int = 0) -> Batch:
    images = torch.rand(5000, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch({"image": images[start : start + count]}, Noise.of(0, step, "train", torch.arange(start, start + count)), count)


@pytest.fixture(scope="module")
def diffusers() -> Any:
    return pytest.importorskip("diffusers")


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_noising_and_target_are_those_of_diffusers(diffusers: Any, shift: float) -> None:
    denoiser, b = Denoiser(), batch()
    loss, metrics = objective(denoiser, shift=shift).matching(b)
    x_t, t = denoiser.asked[0]
    assert t.dtype == torch.float32
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    theirs.sigmas, theirs.timesteps = t / 1000, t  # their grid of times has 1000 points, and ours is continuous
    x, eps = b.data["image"], b.noise.normal("epsilon", *SHAPE)
    torch.testing.assert_close(x_t, theirs.scale_noise(x, t, eps), rtol=1e-5, atol=1e-6)
    expected = (denoiser(x_t, t) - (eps - x)).square().mean()  # as in their training scripts
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert metrics["loss"].item() == loss.item()
    assert not metrics["loss"].requires_grad


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 10])
def test_sampling_is_diffusers_euler(diffusers: Any, shift: float, steps: int) -> None:
    denoiser = Denoiser()
    noise = Noise.of(0, 0, "samples", torch.arange(5))
    with torch.no_grad():
        made = objective(denoiser, steps=steps, shift=shift).sample(Batch({}, noise, 5)).images
        theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        theirs.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps))  # as its pipelines for Flux
        x = noise.normal("start", *SHAPE)
        for t in theirs.timesteps:
            x = theirs.step(denoiser(x, t.expand(5)), t, x).prev_sample
    assert made is not None
    assert len(denoiser.asked) == 2 * steps
    torch.testing.assert_close(made, x.clamp(-1, 1), rtol=1e-4, atol=1e-5)


def test_logit_normal_times_are_those_of_diffusers() -> None:
    u = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    process = DiffusionProcess.model_validate({"prediction": "flow", "timeSampling": "logit-normal"})
    assert times(process, u).tolist() == pytest.approx(LOGIT_NORMAL, abs=5e-4)
    assert times(process, torch.zeros(1)).item() == 0.0


@pytest.mark.parametrize("sampling", ["uniform", "logit-normal"])
def test_times_that_are_drawn_follow_their_distribution(sampling: str) -> None:
    """Shifted as the scheduler of diffusers shifts its sigmas, 3 t / (1 + 2 t)."""
    denoiser = Denoiser()
    ours = objective(denoiser, timeSampling=sampling, shift=3.0, timesteps=500)
    ours.matching(batch(5000))
    drawn = (denoiser.asked[0][1] / 500).sort().values
    unshifted = drawn / (3 - 2 * drawn)
    expected = [0.1, 0.25, 0.5, 0.75, 0.9] if sampling == "uniform" else LOGIT_NORMAL
    assert unshifted[[500, 1250, 2500, 3750, 4500]].tolist() == pytest.approx(expected, abs=0.025)


def test_a_perfect_velocity_leads_to_the_image() -> None:
    """Data that are one image x: the velocity at x_t is (x_t - x) / t, a straight line, and any number of steps samples x."""
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(2)) * 1.8 - 0.9

    class Perfect(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return (x_t - x) / (t / 1000).view(-1, 1, 1, 1)

    for steps in (1, 20):
        made = objective(Perfect(), steps).sample(Batch({}, Noise.of(0, 0, "s", torch.arange(3)), 3)).images
        assert made is not None
        torch.testing.assert_close(made, x.expand(3, -1, -1, -1), atol=1e-5, rtol=0)


def test_mean_of_micro_batches_is_the_batch() -> None:
    ours = objective(Denoiser(), timeSampling="logit-normal")
    whole = ours.matching(batch(6))[0].item()
    assert sum(ours.matching(batch(2, start))[0].item() for start in (0, 2, 4)) / 3 == pytest.approx(whole, rel=1e-5)


def test_heldout_loss_is_fixed_and_covers_the_times() -> None:
    denoiser = Denoiser()
    ours = objective(denoiser)
    with torch.no_grad():
        first, second = (ours.heldout(batch(64, step=step))["loss"][0].item() / 64 for step in (1, 2))
    assert first == second
    assert (denoiser.asked[0][1] // 125).long().bincount(minlength=8).min() >= 7  # eight strata, 64 samples
