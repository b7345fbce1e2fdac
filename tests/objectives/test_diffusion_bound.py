"""The variational bound and the learned variance, against torch.distributions, denoising-diffusion-pytorch and diffusers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion import bound
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.process import cumulative_signal
from trainjobs.objectives.phase import Batch

SHAPE = (1, 4, 4)
TIMES = torch.tensor([0, 1, 20, 500, 999])
# vb_losses of denoising-diffusion-pytorch 2.3.4's LearnedGaussianDiffusion(timesteps=1000, beta_schedule="linear") for `inputs()` at these
# timesteps, by hand. At timestep 0 it takes another variance, having no betat_0 := betat_1.
STEP_BITS = {1: 0.82138, 20: 0.07057, 500: 0.00996, 999: 0.01906}


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels of 8 bits, noise, and two outputs, float64 [5, 1, 4, 4]."""
    n = torch.arange(5 * 16, dtype=torch.float64).view(5, *SHAPE)
    x = torch.round((n * 0.37).sin() * 140.0).clamp(-127.5, 127.5) / 127.5
    return x, (n * 1.7).cos() * 1.2, (n * 0.9).sin(), (n * 0.23).cos()


def noised() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x_0, x_t, the image that the output means, the output for the variance, abar."""
    x, eps, output, variance = inputs()
    abar = cumulative_signal("linear", 1000)
    a, s = abar[TIMES].sqrt().view(-1, 1, 1, 1), (1 - abar[TIMES]).sqrt().view(-1, 1, 1, 1)
    x_t = a * x + s * eps
    return x, x_t, (x_t - s * output) / a, variance, abar


def tables() -> bound.Posterior:
    return bound.posterior("linear", 1000, False, torch.device("cpu"))


class Denoiser(nn.Module):
    """Twice the channels: an image and a variance."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        result: Tensor = 1.5 * torch.tanh(self.conv(x) + 0.001 * t.view(-1, 1, 1, 1))
        return result


def objective(denoiser: nn.Module, sampler: Sampler | None = None, **fields: Any) -> DiffusionObjective:
    process = DiffusionProcess.model_validate({"learnedVariance": True, **fields})
    return DiffusionObjective(denoiser, process, sampler or Sampler(), SHAPE)


def batch(count: int = 16, start: int = 0) -> Batch:
    images = torch.rand(100, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch({"image": images[start : start + count]}, Noise.of(0, 0, "train", torch.arange(start, start + count)), count)


def expected_bits() -> list[float]:
    """By torch.distributions in float64: equations 6, 7 and 13 of Ho et al., 15 of Nichol and Dhariwal."""
    x, x_t, image, output, abar = noised()
    found = []
    for i, t in enumerate(TIMES.tolist()):
        here, before = abar[t], abar[t - 1] if t else torch.ones((), dtype=torch.float64)
        beta = 1 - here / before
        small = beta * (1 - before) / (1 - here) if t else (1 - abar[1] / abar[0]) * (1 - abar[0]) / (1 - abar[1])
        c, d = before.sqrt() * beta / (1 - here), (1 - beta).sqrt() * (1 - before) / (1 - here)
        v = (output[i] + 1) / 2
        p = Normal(c * image[i] + d * x_t[i], (0.5 * (v * beta.log() + (1 - v) * small.log())).exp())
        if t:
            nats = kl_divergence(Normal(c * x[i] + d * x_t[i], small.sqrt()), p)
        else:
            above, below = p.cdf(x[i] + 1 / 255), p.cdf(x[i] - 1 / 255)
            mass = torch.where(x[i] == 1, 1 - below, torch.where(x[i] == -1, above, above - below))
            nats = -mass.log()
        found.append(nats.mean().item() / math.log(2))
    return found


def test_bits_of_a_step_are_those_of_torch_distributions() -> None:
    x, _, image, output, _ = noised()
    ours = bound.step_bits(tables(), TIMES, x, image, output)
    assert (x == 1).any()
    assert (x == -1).any()
    assert ours.tolist() == pytest.approx(expected_bits(), rel=1e-4)
    fp32 = bound.step_bits(tables(), TIMES, x.float(), image.float(), output.float())
    assert fp32.tolist() == pytest.approx(expected_bits(), rel=1e-3)


def test_bits_of_a_step_are_those_of_denoising_diffusion_pytorch() -> None:
    x, _, image, output, _ = noised()
    ours = dict(zip(TIMES.tolist(), bound.step_bits(tables(), TIMES, x, image, output).tolist(), strict=True))
    assert {t: ours[t] for t in STEP_BITS} == pytest.approx(STEP_BITS, abs=1e-5)


def test_the_masses_of_a_pixel_s_values_sum_to_one() -> None:
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, log_variance in ((0.0, -9.0), (0.99, -2.0), (-1.2, -5.0)):
        mass = bound.log_mass(values, torch.tensor(mean), torch.tensor(log_variance)).exp()
        assert mass.sum().item() == pytest.approx(1.0, abs=1e-6)


def test_prior_bits_are_those_of_torch_distributions() -> None:
    x, abar = inputs()[0], cumulative_signal("linear", 1000)
    q = Normal(abar[-1].sqrt() * x, (1 - abar[-1]).sqrt())
    expected = kl_divergence(q, Normal(torch.zeros_like(x), 1.0)).flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(bound.prior_bits(x, tables().last), expected, rtol=1e-6, atol=1e-12)
    terminal = bound.posterior("cosine", 100, True, torch.device("cpu"))
    assert bound.prior_bits(x, terminal.last).tolist() == [0.0] * 5  # pure noise


def test_loss_is_simple_plus_t_over_1000_of_the_bound() -> None:
    denoiser, b, timesteps = Denoiser(), batch(), 400
    ours = objective(denoiser, timesteps=timesteps, prediction="v", schedule="linear")
    loss, metrics = ours.simple_loss(b)
    t = b.noise.integers("t", timesteps, 1)[:, 0]
    abar = cumulative_signal("linear", timesteps).float()
    a, s = abar[t].sqrt().view(-1, 1, 1, 1), (1 - abar[t]).sqrt().view(-1, 1, 1, 1)
    x, eps = b.data["image"], b.noise.normal("epsilon", *SHAPE)
    output, variance = denoiser(a * x + s * eps, t).chunk(2, dim=1)
    image = a * (a * x + s * eps) - s * output
    bits = bound.step_bits(bound.posterior("linear", timesteps, False, torch.device("cpu")), t, x, image, variance).mean()
    simple = (output - (a * eps - s * x)).square().mean()
    assert loss.item() == pytest.approx((simple + timesteps / 1000 * bits).item(), rel=1e-4)
    assert metrics["bits"].item() == pytest.approx(timesteps * bits.item(), rel=1e-4)
    assert not metrics["bits"].requires_grad


def test_the_bound_trains_the_variance_alone() -> None:
    """The gradient in the image's outputs is the simple loss's; that in the variance's is the bound's."""

    class Free(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Parameter(0.1 * torch.ones(16, 2, 4, 4))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.out + 0.0 * x.mean()

    free, b = Free(), batch()
    objective(free).simple_loss(b)[0].backward()
    assert free.out.grad is not None
    wanted = b.noise.normal("epsilon", *SHAPE)
    torch.testing.assert_close(free.out.grad[:, :1], 2 * (0.1 - wanted) / wanted.numel(), rtol=1e-5, atol=1e-9)
    assert (free.out.grad[:, 1:] != 0).all()


def test_a_loss_with_the_bound_is_a_mean_over_samples() -> None:
    ours = objective(Denoiser())
    whole = ours.simple_loss(batch(6))[0].item()
    assert sum(ours.simple_loss(batch(2, start))[0].item() for start in (0, 2, 4)) / 3 == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
@pytest.mark.parametrize("steps", [7, 100])
def test_sampling_with_learned_variance_is_diffusers_ddpm(prediction: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers")
    from diffusers.schedulers import scheduling_ddpm

    denoiser = Denoiser()
    ours = objective(denoiser, Sampler(steps=steps, eta=1.0), schedule="linear", timesteps=1000, prediction=prediction)
    noise = Noise.of(0, 0, "samples", torch.arange(5))
    with torch.no_grad():
        made = ours.sample(Batch({}, noise, 5)).images
        theirs = diffusers.DDPMScheduler(
            variance_type="learned_range",
            prediction_type={"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}[prediction],
            timestep_spacing="trailing",
        )
        theirs.alphas_cumprod = cumulative_signal("linear", 1000)
        theirs.set_timesteps(steps)
        x = noise.normal("start", *SHAPE).double()
        for t in theirs.timesteps:
            # At the last step theirs adds noise where that is not timestep 0; Nichol and Dhariwal's sampler, and ours, does not.
            drawn = noise.normal(f"step-{int(t)}", *SHAPE).double() * float(t != theirs.timesteps[-1])
            monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, drawn=drawn, **__: drawn)
            x = theirs.step(denoiser(x.float(), t.expand(5)).double(), t, x).prev_sample
    assert made is not None
    torch.testing.assert_close(made, x.float(), rtol=1e-3, atol=2e-4)


class Exact(nn.Module):
    """The best prediction for pixels x ~ N(0, width^2), and a variance per timestep that can be learned, or the posterior's."""

    def __init__(self, width: float, timesteps: int) -> None:
        super().__init__()
        self.abar = cumulative_signal("linear", timesteps).float()
        self.width = width
        self.variance = nn.Parameter(-torch.ones(timesteps))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        abar = self.abar[t].view(-1, 1, 1, 1)
        eps = x_t * (1 - abar).sqrt() / (abar * self.width**2 + 1 - abar)
        return torch.cat([eps, self.variance[t].view(-1, 1, 1, 1).expand_as(eps)], dim=1)


def test_a_learned_variance_lowers_bits_per_dimension() -> None:
    """It starts as the posterior's, -1. The true variance of x_{t-1} given x_t is larger, and known: it comes near that of the Gaussian."""
    width, timesteps = 0.25, 8
    denoiser = Exact(width, timesteps)
    ours = objective(denoiser, schedule="linear", timesteps=timesteps)

    def drawn(step: int, count: int = 256) -> Batch:
        samples = torch.arange(step * count, (step + 1) * count)
        pixels = (Noise.of(1, 0, "data", samples).normal("x", *SHAPE) * width * 127.5).round().clamp(-127, 127) / 127.5
        return Batch({"image": pixels}, Noise.of(0, step, "train", samples), count)

    def heldout() -> float:
        with torch.no_grad():
            return (ours.heldout(drawn(500, 2048))["bits"][0] / 2048).item()

    fixed = heldout()
    optimizer = torch.optim.Adam(denoiser.parameters(), 0.05)
    for step in range(60):
        optimizer.zero_grad()
        ours.simple_loss(drawn(step))[0].backward()
        optimizer.step()
    learned = heldout()
    entropy = math.log2(width * 127.5 * math.sqrt(2 * math.pi * math.e))  # of the pixels, the least that a bound can be
    assert abs(learned - entropy) < 0.05  # seen: 7.04, and 7.04 of the pixels
    assert fixed > learned + 1.0  # seen: 8.98
    with torch.no_grad():  # p(x_{t-1} | x_t) of Gaussian data in closed form
        abar = cumulative_signal("linear", timesteps)
        beta = 1 - abar[1:] / abar[:-1]
        before = abar[:-1] * width**2 + 1 - abar[:-1]
        true = before * beta / ((1 - beta) * before + beta)
        small = beta * (1 - abar[:-1]) / (1 - abar[1:])
        best = 2 * (true / small).log() / (beta / small).log() - 1
    middle = slice(1, 5)  # the last steps' two bounds on the variance lie close together, where v says little
    torch.testing.assert_close(denoiser.variance[1:].double()[middle], best[middle], atol=0.15, rtol=0)
