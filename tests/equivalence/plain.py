"""Plain torch training loops, one per family: one process, the whole batch at once, torch.optim, nothing of the loop, of DeepSpeed or
of the objectives. What they share with the trainer is its inputs: networks at their first weights, data in its order, noise by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.job import Job, Spec
from trainjobs.data import Source, open_source
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build


@dataclass
class Result:
    losses: dict[str, list[float]]
    networks: dict[str, nn.Module]
    ema: dict[str, dict[str, Tensor]]


def train(manifest: dict[str, Any], cache: Path, jump: tuple[int, int] | None = None, device: str = "cpu") -> Result:
    """The run of a job by hand; batches are read in one piece. `jump`: (after this step, go on from this sample)."""
    spec = Job.model_validate(manifest).spec
    source = open_source(spec, cache)
    torch.manual_seed(mix(spec.training.seed, "weights"))
    networks = {name: network.to(device) for name, network in build(spec, source.info).modules.items()}
    optimizers = {name: optimizer(spec, name, network) for name, network in networks.items()}
    averaged = {name: network for name, network in networks.items() if name != "discriminator"}
    ema = {name: {key: p.detach().clone() for key, p in network.named_parameters()} for name, network in averaged.items()}
    result = Result({}, networks, ema)
    seen = 0
    for step in range(spec.training.steps):
        if jump is not None and step == jump[0]:
            seen = jump[1]
        if spec.gan:
            seen = gan_step(spec, source, networks, optimizers, step, seen, result.losses, device)
        else:
            batch = spec.training.batch.global_
            data, noise = draw(spec, source, step, "train.0", seen, batch, device)
            (name,) = networks
            loss = {"vae": vae_loss, "diffusion": diffusion_loss, "language": language_loss}[spec.family](spec, networks[name], data, noise)
            update(spec, networks[name], optimizers[name], loss)
            result.losses.setdefault("loss", []).append(loss.item())
            seen += batch
        if spec.training.ema:
            for name, network in averaged.items():
                for key, p in network.named_parameters():
                    decay = spec.training.ema.decay
                    if spec.training.ema.warmup:
                        decay = min(decay, (1 + step) / (10 + step)) if step else 0.0
                    ema[name][key] = decay * ema[name][key] + (1 - decay) * p.detach()
    return result


def draw(spec: Spec, source: Source, step: int, phase: str, seen: int, batch: int, device: str) -> tuple[dict[str, Tensor], Noise]:
    samples = torch.arange(seen, seen + batch)
    data = source.batch(samples, spec.training.seed, Noise.of(spec.training.seed, step, phase, samples))
    noise = Noise.of(spec.training.seed, step, phase, samples.to(device))
    return {name: value.to(device) for name, value in data.items()}, noise


def optimizer(spec: Spec, name: str, network: nn.Module) -> torch.optim.Optimizer:
    chosen = spec.training.optimizer(name)
    if chosen.name == "sgd":
        return torch.optim.SGD(network.parameters(), lr=chosen.learning_rate, momentum=chosen.momentum)
    kind = torch.optim.AdamW if chosen.name == "adamw" else torch.optim.Adam
    betas = (chosen.betas[0], chosen.betas[1])
    return kind(network.parameters(), lr=chosen.learning_rate, betas=betas, eps=chosen.eps, weight_decay=chosen.weight_decay)


def update(spec: Spec, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    if spec.training.gradient_clipping:
        nn.utils.clip_grad_norm_(network.parameters(), spec.training.gradient_clipping)
    optimizer.step()


def vae_loss(spec: Spec, network: nn.Module, data: dict[str, Tensor], noise: Noise) -> Tensor:
    assert spec.vae
    x = data["image"]
    output, mean, logvar = network(noise.normal("z", spec.vae.network.latent_dim), x)
    prior = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    posterior = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    divergence = torch.distributions.kl_divergence(posterior, prior).sum()
    return (((x - output) ** 2).sum() / 2 + (1.0 if spec.vae.loss.beta is None else spec.vae.loss.beta) * divergence) / len(x)


def diffusion_loss(spec: Spec, network: nn.Module, data: dict[str, Tensor], noise: Noise) -> Tensor:
    """diffusers' scheduler makes the noisy images and the targets."""
    from diffusers import DDPMScheduler

    assert spec.diffusion
    process = spec.diffusion.process
    scheduler = DDPMScheduler(process.timesteps, beta_schedule="squaredcos_cap_v2" if process.schedule == "cosine" else "linear")
    x = data["image"]
    t = noise.integers("t", process.timesteps, 1)[:, 0]
    eps = noise.normal("epsilon", *x.shape[1:])
    target = eps if process.prediction == "epsilon" else scheduler.get_velocity(x, eps, t)
    return ((network(scheduler.add_noise(x, eps, t), t) - target) ** 2).mean()


def language_loss(spec: Spec, network: nn.Module, data: dict[str, Tensor], noise: Noise) -> Tensor:
    tokens = data["tokens"]
    log_probabilities = torch.log_softmax(network(input_ids=tokens[:, :-1]).logits, dim=-1)
    return -log_probabilities.gather(2, tokens[:, 1:, None]).mean()


def gan_step(
    spec: Spec,
    source: Source,
    networks: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    step: int,
    seen: int,
    losses: dict[str, list[float]],
    device: str,
) -> int:
    assert spec.gan
    g, d, batch, kind = networks["generator"], networks["discriminator"], spec.training.batch.global_, spec.gan.loss.type
    critic = []
    for repetition in range(spec.gan.loss.critic_steps):
        data, noise = draw(spec, source, step, f"D.{repetition}", seen, batch, device)
        (real,) = data.values()
        fake = g(noise.normal("z", spec.gan.generator.latent_dim)).detach()
        # Spectral norm goes one power iteration further at every call of the network, so their number and order count.
        score_real, score_fake = d(real), d(fake)
        if kind == "wgan-gp":
            u = noise.uniform("interpolation", *[1] * (real.dim() - 1))
            between = (u * real + (1 - u) * fake).requires_grad_()
            slope = torch.autograd.grad(d(between).sum(), between, create_graph=True)[0]
            penalty = ((slope.reshape(batch, -1).norm(dim=1) - 1) ** 2).mean()
            loss = score_fake.mean() - score_real.mean() + spec.gan.loss.gradient_penalty * penalty
        elif kind == "hinge":
            loss = torch.clamp(1 - score_real, min=0).mean() + torch.clamp(1 + score_fake, min=0).mean()
        else:
            loss = F.binary_cross_entropy_with_logits(score_real, torch.ones_like(score_real))
            loss = loss + F.binary_cross_entropy_with_logits(score_fake, torch.zeros_like(score_fake))
        update(spec, d, optimizers["discriminator"], loss)
        critic.append(loss.item())
        seen += batch
    noise = Noise.of(spec.training.seed, step, "G.0", torch.arange(seen, seen + batch, device=device))
    score = d(g(noise.normal("z", spec.gan.generator.latent_dim)))
    loss = F.binary_cross_entropy_with_logits(score, torch.ones_like(score)) if kind == "bce" else -score.mean()
    update(spec, g, optimizers["generator"], loss)
    losses.setdefault("loss/D", []).append(sum(critic) / len(critic))
    losses.setdefault("loss/G", []).append(loss.item())
    return seen
