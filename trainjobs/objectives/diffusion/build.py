"""The networks of a diffusion model, and what trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.denoiser import attention_has_place, resolutions_fit
from trainjobs.api.diffusion import Diffusion
from trainjobs.api.job import Spec
from trainjobs.data.captions import NOTHING
from trainjobs.data.kinds import image
from trainjobs.data.wanted import ROLE
from trainjobs.models.dit import DiT
from trainjobs.models.noise_schedule import NoiseSchedule
from trainjobs.models.unet import UNet
from trainjobs.objectives.diffusion import pipeline_build
from trainjobs.objectives.diffusion.ddpo import FIELD, DdpoObjective
from trainjobs.objectives.diffusion.flow import FlowObjective
from trainjobs.objectives.diffusion.guidance import NONE, Guidance
from trainjobs.objectives.diffusion.learned import LearnedObjective
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.space import Space
from trainjobs.objectives.phase import Model, Objective, model
from trainjobs.objectives.rewarding import imported

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(family: Diffusion, info: DataInfo) -> dict[str, nn.Module]:
    network = family.network
    channels, size = image("diffusion.network.architecture", network.architecture, info)
    for breach in (*resolutions_fit(network, size), *(attention_has_place(network, size) if network.architecture == "unet" else ())):
        raise breach.within("diffusion", "network").problem("GTJ0108", ()).error()
    outputs = 2 * channels if family.process.learned_variance else channels
    denoiser: nn.Module
    if network.architecture == "dit":
        denoiser = DiT(
            image_channels=channels,
            size=size,
            hidden=network.hidden,
            layers=network.layers,
            heads=network.heads,
            patch=network.patch,
            outputs=outputs,
            conditioning=family.conditioning,
            classes=len(info.classes),
        )
    else:
        denoiser = UNet(
            image_channels=channels,
            channels=network.channels,
            multipliers=network.multipliers,
            blocks=network.blocks,
            attention=network.attention,
            outputs=outputs,
            levels=[(size // resolution).bit_length() - 1 for resolution in network.attention_resolutions],
            conditioning=family.conditioning,
            classes=len(info.classes),
        )
    return {"denoiser": denoiser} | ({"noise_schedule": NoiseSchedule()} if family.process.schedule == "learned" else {})


def guidance(family: Diffusion, info: DataInfo) -> Guidance:
    """How the condition is told, and how strongly samples follow it."""
    given = family.conditioning
    if given is None:
        return NONE
    none = len(info.classes) if given.type == "class" else NOTHING
    return Guidance(ROLE[given.type], none, given.dropout, family.sampler.guidance, info.shape[0])


def build(spec: Spec, info: DataInfo) -> Model:
    """The denoiser and what it learns to undo."""
    assert spec.diffusion is not None
    if spec.diffusion.pretrained is not None:
        return pipeline_build.build(spec, info)
    made = networks(spec.diffusion, info)
    process, sampler, led = spec.diffusion.process, spec.diffusion.sampler, guidance(spec.diffusion, info)
    objective: Objective
    space = Space(info.decode)
    if process.prediction == "flow":
        objective = FlowObjective(made["denoiser"], process, sampler, info.shape, led, space)
    elif process.schedule == "learned":
        batch = spec.training.batch.global_
        objective = LearnedObjective(made["denoiser"], made["noise_schedule"], process, sampler, info.shape, batch, led)
    else:
        drawing = DiffusionObjective(made["denoiser"], process, sampler, info.shape, led, space)
        objective = drawing
        if spec.diffusion.method == "ddpo":
            own = spec.diffusion.ddpo
            objective = DdpoObjective(drawing, own, imported(own.reward, FIELD), tuple(info.classes))
    return model(made, objective)
