"""Plain torch loops, one per family, as one would write them by hand: the peer of `bench/training.py`.

They share nothing with the trainer but the networks: data as one tensor in the device's memory, a shuffled index per epoch, noise from
torch's own generator, the loss written out, torch's optimizer (the same one, fused). No metrics, no schedule, no files. Where a choice is
open they take the faster one that is the same algorithm.

`low`: losses under torch's autocast to bfloat16, whose copies of the weights last until the loss is there.

Each returns the (wall, processor) seconds of all steps but the first WARM.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Networks = dict[str, nn.Module]
Elapsed = tuple[float, float]
WARM = 10


def adamw(network: nn.Module, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0, fused=True)


def batches(data: Tensor, size: int) -> Iterator[Tensor]:
    while True:
        for index in torch.randperm(len(data), device=data.device).split(size):
            if len(index) == size:
                yield data[index]


def autocast(data: Tensor, low: bool) -> torch.autocast:
    return torch.autocast(data.device.type, torch.bfloat16, enabled=low)


def clock(steps: int, step: Callable[[], Tensor]) -> Elapsed:
    for _ in range(WARM):
        loss = step()
    assert loss.isfinite()  # and a GPU has come to the end
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps - WARM):
        loss = step()
    assert loss.isfinite()
    return time.perf_counter() - wall, time.process_time() - processor


def gan(networks: Networks, data: Tensor, size: int, rate: float, steps: int, low: bool = False) -> Elapsed:
    """Non-saturating GAN: a discriminator step, then a generator step on fresh latents with the discriminator frozen."""
    generator, discriminator = networks["generator"], networks["discriminator"]
    g_optimizer, d_optimizer = adamw(generator, rate), adamw(discriminator, rate)
    stream = batches(data, size)

    def step() -> Tensor:
        with autocast(data, low):
            with torch.no_grad():
                fake = generator(torch.randn(size, 64, device=data.device))
            loss = F.softplus(-discriminator(next(stream))).mean() + F.softplus(discriminator(fake)).mean()
        loss.backward()
        d_optimizer.step()
        d_optimizer.zero_grad()

        discriminator.requires_grad_(False)
        with autocast(data, low):
            loss = F.softplus(-discriminator(generator(torch.randn(size, 64, device=data.device)))).mean()
        loss.backward()
        g_optimizer.step()
        g_optimizer.zero_grad()
        discriminator.requires_grad_(True)
        return loss

    return clock(steps, step)


def vae(networks: Networks, data: Tensor, size: int, rate: float, steps: int, low: bool = False) -> Elapsed:
    """Negative evidence lower bound with a Gaussian likelihood, in nats per image."""
    autoencoder = networks["autoencoder"]
    optimizer = adamw(autoencoder, rate)
    stream = batches(data, size)

    def step() -> Tensor:
        x = next(stream)
        with autocast(data, low):
            output, mean, logvar = autoencoder(torch.randn(size, 16, device=data.device), x)
            reconstruction = 0.5 * (x - output).square().sum() / size
            divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum() / size
            loss: Tensor = reconstruction + divergence
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return clock(steps, step)


def diffusion(networks: Networks, data: Tensor, size: int, rate: float, steps: int, low: bool = False) -> Elapsed:
    """Prediction of the noise, cosine schedule, 1000 timesteps, uniform weights."""
    denoiser = networks["denoiser"]
    optimizer = adamw(denoiser, rate)
    stream = batches(data, size)
    grid = torch.arange(1001, dtype=torch.float64) / 1000
    signal = ((grid + 0.008) / 1.008 * math.pi / 2).cos().square()
    abar = (1 - (1 - signal[1:] / signal[:-1]).clamp(max=0.999)).cumprod(0)
    a, s = abar.sqrt().float().to(data.device), (1 - abar).sqrt().float().to(data.device)

    def step() -> Tensor:
        x = next(stream)
        t = torch.randint(1000, (size,), device=data.device)
        noise = torch.randn_like(x)
        noisy = a[t, None, None, None] * x + s[t, None, None, None] * noise
        with autocast(data, low):
            loss = F.mse_loss(denoiser(noisy, t), noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return clock(steps, step)


def language(networks: Networks, data: Tensor, size: int, rate: float, steps: int, low: bool = False) -> Elapsed:
    """Next-token cross-entropy, in nats per token."""
    model = networks["model"]
    optimizer = adamw(model, rate)
    stream = batches(data, size)

    def step() -> Tensor:
        tokens = next(stream)
        with autocast(data, low):
            logits = model(input_ids=tokens[:, :-1]).logits
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return clock(steps, step)


LOOPS = {"gan": gan, "vae": vae, "diffusion": diffusion, "language": language}
