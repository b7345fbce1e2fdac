"""A StyleGAN2 trained by hand in plain torch, its lazy terms included: the peer of `bench/lazy.py`.

It shares nothing with the trainer but the networks, which are handed randomness of torch's own generator. As NVlabs' training loop has
it, a lazy term is a backward pass and an optimizer step of its own every so many steps, so many times as heavy, on real samples that the
step has drawn anyway, and Adam's rate and betas are corrected for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.plain_loops import Elapsed, Networks, batches, clock

R1_EVERY, PATH_EVERY = 16, 4  # steps
GAMMA, PATH_WEIGHT, PATH_DECAY, SHRINK, MIXING = 1.0, 2.0, 0.01, 2, 0.9


@dataclass(frozen=True)
class Drawn:
    """What the networks ask of their noise, from torch's generator."""

    count: int  # samples

    def normal(self, name: str, *shape: int) -> Tensor:
        return torch.randn(self.count, *shape)

    def normals(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        return {name: self.normal(name, *shape) for name, shape in shapes.items()}

    def uniform(self, name: str, *shape: int) -> Tensor:
        return torch.rand(self.count, *shape)

    def integers(self, name: str, end: int) -> Tensor:
        return torch.randint(end, (self.count,))


def adam(network: nn.Module, rate: float, every: int) -> torch.optim.Adam:
    """Karras et al., 2020 (arXiv 1912.04958, appendix B)."""
    c = every / (every + 1)
    return torch.optim.Adam(network.parameters(), lr=rate * c, betas=(0.0, 0.99**c), fused=True)


def stylegan2(networks: Networks, data: Tensor, size: int, rate: float, steps: int, low: bool = False) -> Elapsed:
    """The discriminator, its R1, the generator, its path lengths; one optimizer step each. `steps` without the first ones that are not
    counted is a multiple of both intervals. fp32 on the CPU."""
    generator, discriminator = networks["generator"], networks["discriminator"]
    g_optimizer, d_optimizer = adam(generator, rate, PATH_EVERY), adam(discriminator, rate, R1_EVERY)
    stream = batches(data, size)
    mean, number = torch.zeros(()), 0

    def generated(count: int) -> tuple[Tensor, Tensor]:
        noise = Drawn(count)
        styles = generator.styles(torch.randn(count, generator.latent_dim), noise, MIXING)  # type: ignore[operator]
        return styles, generator.draw(styles, noise)  # type: ignore[operator]

    def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def step() -> Tensor:
        nonlocal mean, number
        real = next(stream)
        generator.requires_grad_(False)
        with torch.no_grad():
            _, fake = generated(size)
        update(d_optimizer, F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake)).mean())
        if number % R1_EVERY == 0:
            seen = real.detach().requires_grad_()
            (slope,) = torch.autograd.grad(discriminator(seen).sum(), seen, create_graph=True)
            update(d_optimizer, 0.5 * GAMMA * R1_EVERY * slope.square().sum(dim=(1, 2, 3)).mean())
        generator.requires_grad_(True)

        discriminator.requires_grad_(False)
        loss = F.softplus(-discriminator(generated(size)[1])).mean()
        update(g_optimizer, loss)
        if number % PATH_EVERY == 0:
            styles, images = generated(size // SHRINK)
            y = torch.randn_like(images) / math.sqrt(images[0, 0].numel())
            (slope,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
            lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()
            update(g_optimizer, PATH_EVERY * PATH_WEIGHT * (lengths - mean).square().mean())
            mean = torch.lerp(mean, lengths.detach().mean(), PATH_DECAY)
        discriminator.requires_grad_(True)
        number += 1
        return loss

    return clock(steps, step)
