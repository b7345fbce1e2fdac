"""The networks of a GAN, and what trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.gan import Gan
from trainjobs.api.job import Spec
from trainjobs.data.kinds import image, point
from trainjobs.models import dcgan, mlp
from trainjobs.objectives.gan.objective import GanObjective
from trainjobs.objectives.phase import Model, Network

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(gan: Gan, info: DataInfo) -> dict[str, nn.Module]:
    g, d = gan.generator, gan.discriminator
    generator: nn.Module
    discriminator: nn.Module
    if g.architecture == "dcgan":
        channels, size = image("gan.generator.architecture", g.architecture, info)
        generator = dcgan.Generator(
            latent_dim=g.latent_dim, channels=g.channels, size=size, image_channels=channels, batch_norm=g.normalization == "batch"
        )
    else:
        generator = mlp.Generator(
            latent_dim=g.latent_dim,
            channels=g.channels,
            depth=g.layers,
            dimension=point("gan.generator.architecture", g.architecture, info),
            batch_norm=g.normalization == "batch",
        )
    if d.architecture == "dcgan":
        channels, size = image("gan.discriminator.architecture", d.architecture, info)
        discriminator = dcgan.Discriminator(
            channels=d.channels, size=size, image_channels=channels, batch_norm=d.normalization == "batch", spectral=d.spectral_norm
        )
    else:
        discriminator = mlp.Discriminator(
            channels=d.channels,
            depth=d.layers,
            dimension=point("gan.discriminator.architecture", d.architecture, info),
            batch_norm=d.normalization == "batch",
            spectral=d.spectral_norm,
        )
    return {"generator": generator, "discriminator": discriminator}


def build(spec: Spec, info: DataInfo) -> Model:
    """Generator, discriminator and their game. Nobody draws samples with a discriminator, so its weights are not averaged."""
    assert spec.gan is not None
    made = networks(spec.gan, info)
    assert info.kind != "text"
    networks_of = {name: Network(module, averaged=name == "generator") for name, module in made.items()}
    objective = GanObjective(made["generator"], made["discriminator"], spec.gan.loss, spec.gan.generator.latent_dim, info.kind)
    return Model(networks_of, objective)
