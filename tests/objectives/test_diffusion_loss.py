"""Diffusion against diffusers' schedulers: schedules, noising, targets and whole sampling trajectories."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.process import Schedule, cumulative_signal
from trainjobs.objectives.diffusion.sampler import trailing_steps
from trainjobs.objectives.phase import Batch

SHAPE = (1, 8, 8)
BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "scaled-linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},  # Stable Diffusion's scheduler
}
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}


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


def objective(denoiser: nn.Module | None = None, **fields: Any) -> DiffusionObjective:
    sampler = Sampler.model_validate({key: fields.pop(key) for key in ("steps", "eta") if key in fields})
    return DiffusionObjective(denoiser or Denoiser(), DiffusionProcess.model_validate(fields), sampler, SHAPE)


def batch(count: int = 16, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch({"image": torch.rand(count, *SHAPE, generator=generator) * 2 - 1}, Noise.of(0, step, "train", torch.arange(count)), count)


@pytest.fixture(scope="module")
def diffusers() -> Any:
    return pytest.importorskip("diffusers")


@pytest.mark.parametrize("schedule", BETAS)
def test_schedules_are_those_of_diffusers(diffusers: Any, schedule: Schedule) -> None:
    theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, **BETAS[schedule]).alphas_cumprod
    torch.testing.assert_close(cumulative_signal(schedule, 1000).float(), theirs, rtol=2e-4, atol=1e-7)  # theirs multiplies in float32


def test_the_cosine_schedule_is_the_formula_until_it_is_capped() -> None:
    from math import cos, pi

    abar = cumulative_signal("cosine", 200)
    for t in (0, 50, 150, 190):
        formula = cos(((t + 1) / 200 + 0.008) / 1.008 * pi / 2) ** 2 / cos(0.008 / 1.008 * pi / 2) ** 2
        assert abar[t].item() == pytest.approx(formula, rel=1e-9)
    assert 0.0 < abar[-1] < 1e-6  # the formula says 0, from which no x_0 follows


@pytest.mark.parametrize("timesteps", [2, 50, 4000])
def test_fewer_or_more_steps_end_as_noisy(timesteps: int) -> None:
    for schedule in BETAS:
        abar = cumulative_signal(schedule, timesteps)  # type: ignore[arg-type]
        assert 0.0 < abar[-1] < (6e-3 if schedule == "scaled-linear" else 2e-3)  # Stable Diffusion's ends at 0.0047
        assert (abar.diff() < 0).all()
    assert cumulative_signal("linear", 4000)[-1].item() == pytest.approx(cumulative_signal("linear", 1000)[-1].item(), rel=0.25)


@pytest.mark.parametrize("schedule", BETAS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noising_and_target_are_those_of_diffusers(diffusers: Any, schedule: str, prediction: str) -> None:
    denoiser, b = Denoiser(), batch()
    ours = objective(denoiser, schedule=schedule, prediction=prediction)
    loss, metrics = ours.phases[0].loss(b)
    x_t, t = denoiser.asked[0]
    assert t.dtype == torch.int64
    assert t.tolist() == b.noise.integers("t", 1000, 1)[:, 0].tolist()
    theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, **BETAS[schedule])
    x, eps = b.data["image"], b.noise.normal("epsilon", *SHAPE)
    torch.testing.assert_close(x_t, theirs.add_noise(x, eps, t), rtol=1e-4, atol=1e-5)
    target = {"epsilon": eps, "v": theirs.get_velocity(x, eps, t), "sample": x}[prediction]
    expected = ((denoiser(x_t, t) - target) ** 2).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert metrics["loss"].item() == loss.item()
    assert not metrics["loss"].requires_grad


@pytest.mark.parametrize("schedule", BETAS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("eta", "steps"), [(0.0, 10), (0.0, 50), (1.0, 10), (0.5, 1)])
def test_sampling_is_diffusers_ddim(diffusers: Any, schedule: str, prediction: str, eta: float, steps: int) -> None:
    denoiser = Denoiser()
    ours = objective(denoiser, schedule=schedule, prediction=prediction, steps=steps, eta=eta)
    noise = Noise.of(0, 0, "samples", torch.arange(5))
    with torch.no_grad():
        made = ours.sample(Batch({}, noise, 5)).images
        theirs = diffusers.DDIMScheduler(
            num_train_timesteps=1000,
            prediction_type=PREDICTIONS[prediction],
            timestep_spacing="trailing",
            set_alpha_to_one=True,
            clip_sample=True,
        )
        # Ours in place of theirs (compared above), whose products are rounded to float32: 1 - abar_t / abar_s would differ.
        theirs.alphas_cumprod = cumulative_signal(schedule, 1000)  # type: ignore[arg-type]
        theirs.set_timesteps(steps)
        x = noise.normal("start", *SHAPE).double()
        for t in theirs.timesteps:
            predicted = denoiser(x.float(), t.expand(5)).double()
            variance_noise = noise.normal(f"step-{int(t)}", *SHAPE).double() if eta else None
            x = theirs.step(predicted, t, x, eta=eta, use_clipped_model_output=True, variance_noise=variance_noise).prev_sample
    assert made is not None
    torch.testing.assert_close(made, x.float(), rtol=1e-3, atol=2e-4)
    assert made.abs().max() <= 1.0


@pytest.mark.parametrize("timesteps", [4, 1000])
@pytest.mark.parametrize("steps", [1, 3, 4, 50, 1000])
def test_steps_are_trailing(diffusers: Any, timesteps: int, steps: int) -> None:
    ours = trailing_steps(timesteps, steps)
    assert ours[0] == timesteps - 1
    assert len(ours) == len(set(ours)) == min(steps, timesteps)
    if steps <= timesteps:
        theirs = diffusers.DDIMScheduler(num_train_timesteps=timesteps, timestep_spacing="trailing")
        theirs.set_timesteps(steps)
        assert ours == theirs.timesteps.tolist()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_denoiser_leads_to_the_image(prediction: str) -> None:
    """Data that are one image x: the exact eps or v of x_t is known, and any number of steps samples x."""
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(2)) * 1.8 - 0.9
    abar = cumulative_signal("cosine", 1000)

    class Perfect(nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            a, s = abar[t].sqrt().view(-1, 1, 1, 1), (1 - abar[t]).sqrt().view(-1, 1, 1, 1)
            eps = (x_t - a * x) / s
            return {"epsilon": eps, "v": a * eps - s * x, "sample": x.expand_as(x_t)}[prediction].float()

    for eta in (0.0, 1.0):
        ours = objective(Perfect(), prediction=prediction, schedule="cosine", steps=20, eta=eta)
        made = ours.sample(Batch({}, Noise.of(0, 0, "s", torch.arange(3)), 3))
        assert made.images is not None
        torch.testing.assert_close(made.images, x.expand(3, -1, -1, -1), atol=1e-4, rtol=0)


def test_ddpm_variance_is_reached_at_eta_one() -> None:
    """With x_0 known, eta 1 and all steps, the samples at each t have the forward process's variance: Ho et al., equation 7."""
    denoiser = nn.Module()
    abar = cumulative_signal("linear", 100)
    seen: dict[int, float] = {}

    def zero_image(x_t: Tensor, t: Tensor) -> Tensor:  # the data are one image of zeros, so x_t ~ N(0, 1 - abar_t)
        seen[int(t[0])] = x_t.var().item()
        return x_t / (1 - abar[t[0]]).sqrt().float()

    denoiser.forward = zero_image  # type: ignore[assignment]
    objective(denoiser, schedule="linear", timesteps=100, steps=100, eta=1.0).sample(Batch({}, Noise.of(0, 0, "s", torch.arange(500)), 500))
    for t in (99, 50, 10, 1):
        assert seen[t] == pytest.approx(1 - abar[t].item(), rel=0.03)


def test_heldout_loss_is_fixed_and_covers_the_timesteps() -> None:
    denoiser = Denoiser()
    ours = objective(denoiser)
    with torch.no_grad():
        first, second = (ours.heldout(batch(64, step))["loss"][0].item() / 64 for step in (1, 2))
    assert first == second
    t = denoiser.asked[0][1]
    assert t.div(125, rounding_mode="floor").bincount(minlength=8).min() >= 7  # eight strata, 64 samples
    assert t.min() >= 0
    assert t.max() < 1000


def test_training_timesteps_are_uniform() -> None:
    denoiser = Denoiser()
    objective(denoiser, timesteps=10).simple_loss(batch(5000))
    counts = denoiser.asked[0][1].bincount(minlength=10)
    assert len(counts) == 10
    assert ((counts - 500).abs() < 100).all()  # over 4 standard deviations


def test_bf16_agrees_with_fp32_within_its_precision() -> None:
    ours = objective()
    exact = ours.simple_loss(batch())[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = ours.simple_loss(batch())[0]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)
