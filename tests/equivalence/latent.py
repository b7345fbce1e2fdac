"""Plain torch loops over diffusers' AutoencoderKL: one that trains it, and one that trains a denoiser on its latents. Inputs are those of
the trainer: first weights, data in its order, noise by name. The rest as in plain.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from plain import Result, draw, optimizer, update
from torch import Tensor

from trainjobs.api.job import Job, Spec
from trainjobs.data import open_source
from trainjobs.data.source import DataInfo
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build


def tiny(folder: Path, seed: int = 0, **told: Any) -> Path:
    """A folder as diffusers' save_pretrained leaves it: random weights, for grey pictures, whose latents are half as large."""
    torch.manual_seed(seed)
    whole = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 16],
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=4,
        **{"scaling_factor": 0.7, "shift_factor": 0.1, **told},
    )
    whole.save_pretrained(folder)
    return folder


def train(manifest: dict[str, Any], cache: Path) -> Result:
    """The run of a job by hand; batches are read in one piece."""
    spec = Job.model_validate(manifest).spec
    source = open_source(spec, cache)
    return autoencoder(spec, source) if spec.vae is not None else denoiser(spec, source)


def autoencoder(spec: Spec, source: Any) -> Result:
    """L1 and the KL of diffusers' own distribution, as the training script of diffusers adds them up."""
    assert spec.vae is not None
    torch.manual_seed(mix(spec.training.seed, "weights"))
    state = build(spec, source.info).modules["autoencoder"].state_dict()
    network = spec.vae.network
    whole = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=["DownEncoderBlock2D"] * len(network.multipliers),
        up_block_types=["UpDecoderBlock2D"] * len(network.multipliers),
        block_out_channels=[network.channels * multiplier for multiplier in network.multipliers],
        layers_per_block=network.blocks,
        latent_channels=network.latent_channels,
        norm_num_groups=network.groups,
    )
    whole.load_state_dict(state)
    stepping, result = optimizer(spec, "autoencoder", whole), Result({}, {"autoencoder": whole}, {})
    batch = spec.training.batch.global_
    for step in range(spec.training.steps):
        data, noise = draw(spec, source, step, "train.0", step * batch, batch, "cpu")
        posterior = whole.encode(data["image"]).latent_dist
        z = posterior.mean + posterior.std * noise.normal("z", posterior.mean[0].numel()).view_as(posterior.mean)
        rebuilt = whole.decode(z).sample
        loss = ((data["image"] - rebuilt).abs().sum() + 1e-6 * posterior.kl().sum()) / batch
        update(spec, whole, stepping, loss)
        result.losses.setdefault("loss", []).append(loss.item())
    return result


def denoiser(spec: Spec, source: Any) -> Result:
    """v on the latents that diffusers encodes."""
    assert spec.diffusion is not None
    assert spec.diffusion.latents is not None
    whole = AutoencoderKL.from_pretrained(spec.diffusion.latents.autoencoder.removeprefix("file://"))
    torch.manual_seed(mix(spec.training.seed, "weights"))
    network = build(spec, DataInfo("image", (2, 4, 4), 1, 0)).modules["denoiser"]
    stepping, result = optimizer(spec, "denoiser", network), Result({}, {"denoiser": network}, {})
    batch, process = spec.training.batch.global_, spec.diffusion.process
    scheduler = DDPMScheduler(process.timesteps, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    for step in range(spec.training.steps):
        data, noise = draw(spec, source, step, "train.0", step * batch, batch, "cpu")
        x = latents(whole, data["image"], noise)
        t, eps = noise.integers("t", process.timesteps, 1)[:, 0], noise.normal("epsilon", *x.shape[1:])
        loss = (network(scheduler.add_noise(x, eps, t), t) - scheduler.get_velocity(x, eps, t)).square().mean()
        update(spec, network, stepping, loss)
        result.losses.setdefault("loss", []).append(loss.item())
    return result


def latents(whole: Any, images: Tensor, noise: Noise) -> Tensor:
    """As Stable Diffusion 3's pipeline has them."""
    with torch.no_grad():
        posterior = whole.encode(images).latent_dist
    z = posterior.mean + posterior.std * noise.normal("latents", *posterior.mean.shape[1:])
    return (z - whole.config.shift_factor) * whole.config.scaling_factor
