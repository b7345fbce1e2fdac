"""The networks of a GAN, and what trains them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from trainjobs.api.gan import Gan
from trainjobs.api.job import Spec
from trainjobs.data.kinds import image, point
from trainjobs.models import dcgan, mlp, pggan, sagan, stylegan2
from trainjobs.objectives.gan.ada import Ada
from trainjobs.objectives.gan.growing import Growth
from trainjobs.objectives.gan.objective import AdaptiveGan, GanObjective
from trainjobs.objectives.gan.path_length import PathMean
from trainjobs.objectives.phase import Model, Network

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(gan: Gan, info: DataInfo) -> dict[str, nn.Module]:
    g, d = gan.generator, gan.discriminator
    start = gan.progressive.start.bit_length() - 3 if gan.progressive else None
    classes = len(info.classes) if gan.conditional else 0
    generator: nn.Module
    discriminator: nn.Module
    if g.architecture == "dcgan":
        channels, size = image("gan.generator.architecture", g.architecture, info)
        generator = dcgan.Generator(
            latent_dim=g.latent_dim,
            channels=g.channels,
            size=size,
            image_channels=channels,
            batch_norm=g.normalization == "batch",
            spectral=g.spectral_norm,
            attention=g.attention,
            classes=classes,
        )
    elif g.architecture == "sagan":
        channels, size = image("gan.generator.architecture", g.architecture, info)
        generator = sagan.Generator(
            latent_dim=g.latent_dim,
            channels=g.channels,
            size=size,
            image_channels=channels,
            attention=g.attention,
            classes=classes,
            batch_norm=g.normalization == "batch",
        )
    elif g.architecture == "pggan":
        channels, size = image("gan.generator.architecture", g.architecture, info)
        generator = pggan.Generator(latent_dim=g.latent_dim, channels=g.channels, size=size, image_channels=channels, start=start)
    elif g.architecture == "stylegan2":
        channels, size = image("gan.generator.architecture", g.architecture, info)
        generator = stylegan2.Generator(
            latent_dim=g.latent_dim,
            channels=g.channels,
            size=size,
            image_channels=channels,
            mapping_layers=g.mapping_layers,
            classes=classes,
        )
    else:
        generator = mlp.Generator(
            latent_dim=g.latent_dim,
            channels=g.channels,
            depth=g.layers,
            dimension=point("gan.generator.architecture", g.architecture, info),
            batch_norm=g.normalization == "batch",
            spectral=g.spectral_norm,
        )
    group = d.minibatch_deviation.group if d.minibatch_deviation else None
    if d.architecture == "dcgan":
        channels, size = image("gan.discriminator.architecture", d.architecture, info)
        discriminator = dcgan.Discriminator(
            channels=d.channels,
            size=size,
            image_channels=channels,
            batch_norm=d.normalization == "batch",
            spectral=d.spectral_norm,
            attention=d.attention,
            group=group,
            classes=classes,
        )
    elif d.architecture == "sagan":
        channels, size = image("gan.discriminator.architecture", d.architecture, info)
        discriminator = sagan.Discriminator(
            channels=d.channels, size=size, image_channels=channels, attention=d.attention, group=group, classes=classes
        )
    elif d.architecture == "pggan":
        channels, size = image("gan.discriminator.architecture", d.architecture, info)
        discriminator = pggan.Discriminator(channels=d.channels, size=size, image_channels=channels, group=group, start=start)
    elif d.architecture == "stylegan2":
        channels, size = image("gan.discriminator.architecture", d.architecture, info)
        discriminator = stylegan2.Discriminator(channels=d.channels, size=size, image_channels=channels, group=group, classes=classes)
    else:
        discriminator = mlp.Discriminator(
            channels=d.channels,
            depth=d.layers,
            dimension=point("gan.discriminator.architecture", d.architecture, info),
            batch_norm=d.normalization == "batch",
            spectral=d.spectral_norm,
            group=group,
        )
    return {"generator": generator, "discriminator": discriminator}


def build(spec: Spec, info: DataInfo) -> Model:
    """Generator, discriminator and their game. Nobody draws samples with a discriminator, so its weights are not averaged."""
    gan = spec.gan
    assert gan is not None
    made = networks(gan, info)
    assert info.kind != "text"
    clipped = clip(gan.loss.weight_clip) if gan.loss.type == "wgan" else None
    found = {
        "generator": Network(made["generator"], norm=True),
        "discriminator": Network(made["discriminator"], averaged=False, after=clipped, norm=True),
    }
    growth = Growth(gan.progressive, info.shape[-1], spec.samples_per_step) if gan.progressive else None
    if growth:
        found = {name: growth.network(name, network) for name, network in found.items()}
    return Model(found, objective(made["generator"], made["discriminator"], gan, info.kind, spec.training.batch.global_, growth))


def objective(
    generator: nn.Module,
    discriminator: nn.Module,
    gan: Gan,
    kind: Literal["image", "point"],
    batch: int,
    growth: Growth | None = None,
) -> GanObjective:
    """What adapts is told what was measured, which takes a collective; so there is another class for what does not."""
    length = gan.regularization.path_length
    path = PathMean(length) if length else None
    ada = Ada(gan.augment, batch * gan.shown) if gan.augment and gan.augment.type == "ada" else None
    return (AdaptiveGan if path or ada else GanObjective)(generator, discriminator, gan, kind, path, ada, growth)


def clip(most: float) -> Callable[[Tensor], Tensor]:
    """w <- clip(w, -c, c): Arjovsky et al., "Wasserstein GAN", 2017 (arXiv 1701.07875, algorithm 1, line 7)."""
    return lambda weights: weights.clamp_(-most, most)
