"""The networks of a diffusion model, and what trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.diffusion import Diffusion, resolutions_fit
from trainjobs.api.job import Spec
from trainjobs.data.kinds import image
from trainjobs.models.noise_schedule import NoiseSchedule
from trainjobs.models.unet import UNet
from trainjobs.objectives.diffusion.flow import FlowObjective
from trainjobs.objectives.diffusion.learned import LearnedObjective
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.phase import Model, Objective, model

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(family: Diffusion, info: DataInfo) -> dict[str, nn.Module]:
    network = family.network
    channels, size = image("diffusion.network.architecture", network.architecture, info)
    for breach in resolutions_fit(network, size):
        raise breach.within("diffusion", "network").problem("GTJ0108", ()).error()
    denoiser = UNet(
        image_channels=channels,
        channels=network.channels,
        multipliers=network.multipliers,
        blocks=network.blocks,
        attention=network.attention,
        outputs=2 * channels if family.process.learned_variance else channels,
    )
    return {"denoiser": denoiser} | ({"noise_schedule": NoiseSchedule()} if family.process.schedule == "learned" else {})


def build(spec: Spec, info: DataInfo) -> Model:
    """The denoiser and what it learns to undo."""
    assert spec.diffusion is not None
    made = networks(spec.diffusion, info)
    process, sampler = spec.diffusion.process, spec.diffusion.sampler
    objective: Objective
    if process.prediction == "flow":
        objective = FlowObjective(made["denoiser"], process, sampler, info.shape)
    elif process.schedule == "learned":
        batch = spec.training.batch.global_
        objective = LearnedObjective(made["denoiser"], made["noise_schedule"], process, sampler, info.shape, batch)
    else:
        objective = DiffusionObjective(made["denoiser"], process, sampler, info.shape)
    return model(made, objective)
