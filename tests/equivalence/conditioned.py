"""A plain torch loop for diffusion models that are conditioned: which condition is dropped is decided here, noise by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from plain import Result, draw, optimizer, update
from torch import Tensor, nn

from trainjobs.api.job import Job, Spec
from trainjobs.data import open_source
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build


def train(manifest: dict[str, Any], cache: Path) -> Result:
    """The run of a job by hand; batches are read in one piece."""
    spec = Job.model_validate(manifest).spec
    source = open_source(spec, cache)
    torch.manual_seed(mix(spec.training.seed, "weights"))
    network = build(spec, source.info).modules["denoiser"]
    chosen = optimizer(spec, "denoiser", network)
    result, batch = Result({"loss": []}, {"denoiser": network}, {}), spec.training.batch.global_
    for step in range(spec.training.steps):
        data, noise = draw(spec, source, step, "train.0", step * batch, batch, "cpu")
        loss = loss_of(spec, network, data, noise, len(source.info.classes))
        update(spec, network, chosen, loss)
        result.losses["loss"].append(loss.item())
    return result


def loss_of(spec: Spec, network: nn.Module, data: dict[str, Tensor], noise: Noise, classes: int) -> Tensor:
    from diffusers import DDPMScheduler

    assert spec.diffusion is not None
    assert spec.diffusion.conditioning is not None
    process, given = spec.diffusion.process, spec.diffusion.conditioning
    kept = noise.uniform("condition", 1)[:, 0] >= given.dropout
    if given.type == "class":
        told = torch.tensor([int(label) if keep else classes for label, keep in zip(data["label"], kept, strict=True)])
    else:
        told = torch.full_like(data["caption"], 256)
        told[kept] = data["caption"][kept]
    x = data["image"]
    eps = noise.normal("epsilon", *x.shape[1:])
    if process.prediction == "flow":
        t = noise.uniform("t", 1)[:, 0]
        return (network(torch.lerp(x, eps, t[:, None, None, None]), 1000 * t, told) - (eps - x)).square().mean()
    scheduler = DDPMScheduler(process.timesteps, beta_schedule="squaredcos_cap_v2")
    t = noise.integers("t", process.timesteps, 1)[:, 0]
    return (network(scheduler.add_noise(x, eps, t), t, told) - scheduler.get_velocity(x, eps, t)).square().mean()
