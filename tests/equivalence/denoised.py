"""Plain torch loops for techniques of diffusion models and VAEs: schedules, targets and weights by diffusers, divergences by
torch.distributions, derivatives by autograd. The rest as in plain.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from plain import Result, draw, optimizer, update
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from trainjobs.api.job import Job, Spec
from trainjobs.data import open_source
from trainjobs.models.noise_schedule import FIRST, LAST
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build


def train(manifest: dict[str, Any], cache: Path) -> Result:
    """The run of a job by hand; batches are read in one piece."""
    spec = Job.model_validate(manifest).spec
    source = open_source(spec, cache)
    torch.manual_seed(mix(spec.training.seed, "weights"))
    networks = dict(build(spec, source.info).modules)
    optimizers = {name: optimizer(spec, name, network) for name, network in networks.items()}
    result = Result({}, networks, {})
    seen, batch = 0, spec.training.batch.global_
    for step in range(spec.training.steps):
        for phase, (name, network) in zip(("train", "noise_schedule"), networks.items(), strict=False):
            data, noise = draw(spec, source, step, f"{phase}.0", seen, batch, "cpu")
            loss = loss_of(spec, networks, phase, data["image"], noise, step)
            update(spec, network, optimizers[name], loss)
            for other in networks.values():
                other.zero_grad()
            result.losses.setdefault("loss" if phase == "train" else f"loss/{phase}", []).append(loss.item())
            seen += batch
    return result


def loss_of(spec: Spec, networks: dict[str, nn.Module], phase: str, x: Tensor, noise: Noise, step: int) -> Tensor:
    if spec.vae is not None:
        return vae(spec, networks["autoencoder"], x, noise, step)
    assert spec.diffusion is not None
    if spec.diffusion.process.prediction == "flow":
        return flow(spec, networks["denoiser"], x, noise)
    if spec.diffusion.process.schedule == "learned":
        return continuous(spec, networks, x, noise, squared=phase == "noise_schedule")
    return discrete(spec, networks["denoiser"], x, noise)


def vae(spec: Spec, network: nn.Module, x: Tensor, noise: Noise, step: int) -> Tensor:
    """Cyclical annealing, and free bits of each sample and dimension."""
    assert spec.vae is not None
    given = spec.vae.loss
    assert given.annealing is not None
    output, mean, logvar = network(noise.normal("z", spec.vae.network.latent_dim), x)
    kl = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros_like(mean), 1.0))
    period = given.annealing.steps / given.annealing.cycles
    weight = given.beta * (min(1.0, (step % period) / period / 0.5) if step < given.annealing.steps else 1.0)
    return ((x - output) ** 2).sum() / 2 / len(x) + weight * torch.maximum(kl, torch.tensor(given.free_bits)).sum() / len(x)


def discrete(spec: Spec, network: nn.Module, x: Tensor, noise: Noise) -> Tensor:
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    assert spec.diffusion is not None
    process = spec.diffusion.process
    scheduler = DDPMScheduler(
        process.timesteps,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=process.zero_terminal_snr,
    )
    t, eps = noise.integers("t", process.timesteps, 1)[:, 0], noise.normal("epsilon", *x.shape[1:])
    target = scheduler.get_velocity(x, eps, t) if process.prediction == "v" else x
    x_t = scheduler.add_noise(x, eps, t)
    output = network(x_t, t)
    if process.learned_variance:
        output, variance = output.chunk(2, dim=1)
    each = (output - target).square().mean(dim=(1, 2, 3))
    if process.min_snr_gamma is not None:
        snr = compute_snr(scheduler, t)
        each = each * snr.clamp(max=process.min_snr_gamma) / (snr + 1 if process.prediction == "v" else 1)
    loss = each.mean()
    if not process.learned_variance:
        return loss
    bits = torch.stack([step_bits(scheduler, int(t[i]), x[i], x_t[i], output[i].detach(), variance[i]) for i in range(len(x))])
    return loss + process.timesteps / 1000 * bits.mean()


def step_bits(scheduler: Any, t: int, x: Tensor, x_t: Tensor, image: Tensor, variance: Tensor) -> Tensor:
    """Of one sample whose network predicts the image: the scheduler says the posterior's mean and the learned variance."""
    abar = scheduler.alphas_cumprod.double()
    here, before = abar[t], abar[t - 1] if t else torch.ones((), dtype=torch.float64)
    beta = 1 - here / before
    c, d = (before.sqrt() * beta / (1 - here)).float(), ((1 - beta).sqrt() * (1 - before) / (1 - here)).float()
    # At its own timestep 0 the scheduler has no variance to begin from; that of timestep 1 is meant.
    small, large = scheduler._get_variance(max(t, 1), variance_type="fixed_small"), beta.float()
    v = (variance + 1) / 2
    p = Normal(c * image + d * x_t, (0.5 * (v * large.log() + (1 - v) * small.log())).exp())
    if t:
        return kl_divergence(Normal(c * x + d * x_t, small.sqrt()), p).mean() / math.log(2)
    above, below = p.cdf(x + 1 / 255), p.cdf(x - 1 / 255)
    mass = torch.where(x > 0.999, 1 - below, torch.where(x < -0.999, above, above - below))
    return -mass.clamp(min=1e-12).log().mean() / math.log(2)


def flow(spec: Spec, network: nn.Module, x: Tensor, noise: Noise) -> Tensor:
    """Logit-normal times, shifted."""
    assert spec.diffusion is not None
    process = spec.diffusion.process
    t = torch.sigmoid(Normal(0.0, 1.0).icdf(noise.uniform("t", 1)[:, 0]))
    t = (process.shift * t / (1 + (process.shift - 1) * t))[:, None, None, None]
    eps = noise.normal("epsilon", *x.shape[1:])
    return (network(torch.lerp(x, eps, t), 1000 * t.flatten()) - (eps - x)).square().mean()


def continuous(spec: Spec, networks: dict[str, nn.Module], x: Tensor, noise: Noise, *, squared: bool) -> Tensor:
    """The slope of gamma by autograd, through which the schedule's phase differentiates once more."""
    G = spec.training.batch.global_
    first = mix(noise.seed, "t") * 2.0**-63
    t = torch.tensor([(first + n % G / G) % 1.0 for n in noise.samples.tolist()], dtype=torch.float32, requires_grad=True)
    gamma = networks["noise_schedule"](t)[0]
    (slope,) = torch.autograd.grad(gamma.sum(), t, create_graph=True)
    if not squared:
        gamma, slope = gamma.detach(), slope.detach()
    g, eps = gamma[:, None, None, None], noise.normal("epsilon", *x.shape[1:])
    predicted = networks["denoiser"]((-g).sigmoid().sqrt() * x + g.sigmoid().sqrt() * eps, 1000 * (gamma - FIRST) / (LAST - FIRST))
    bits = 0.5 * slope * (eps - predicted).square().mean(dim=(1, 2, 3)) / math.log(2)
    return (bits**2 if squared else bits).mean()
