"""The network of a diffusion model, and what trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.diffusion import Diffusion, resolutions_fit
from trainjobs.api.job import Spec
from trainjobs.data.kinds import image
from trainjobs.models.unet import UNet
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.phase import Model, model

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(family: Diffusion, info: DataInfo) -> dict[str, nn.Module]:
    network = family.network
    channels, size = image("diffusion.network.architecture", network.architecture, info)
    for breach in resolutions_fit(network, size):
        raise breach.within("diffusion", "network").problem("GTJ0108", ()).error()
    return {
        "denoiser": UNet(
            image_channels=channels,
            channels=network.channels,
            multipliers=network.multipliers,
            blocks=network.blocks,
            attention=network.attention,
        )
    }


def build(spec: Spec, info: DataInfo) -> Model:
    """The denoiser and what it learns to undo."""
    assert spec.diffusion is not None
    made = networks(spec.diffusion, info)
    return model(made, DiffusionObjective(made["denoiser"], spec.diffusion.process, spec.diffusion.sampler, info.shape))
