"""A generative adversarial network, as users write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, Width
from trainjobs.api.only import only
from trainjobs.api.rule import Breach, Rule

# What the networks of each architecture make and judge.
LEARNS = {"dcgan": "image", "mlp": "point"}
Layers = Annotated[int, Field(ge=1, le=16), only(architecture="mlp", because="whose depth follows from the image size")]


class Generator(Model):
    """Maps latents z ~ N(0, I) to samples."""

    architecture: Literal["dcgan", "mlp"] = Field("dcgan", description="dcgan for images, mlp for points.")
    latent_dim: Width = Field(64, description="Dimension of the latent z.")
    channels: Width = Field(64, description="Feature maps at full resolution (dcgan) or units of a hidden layer (mlp).")
    layers: Layers = Field(3, description="Hidden layers.")
    normalization: Literal["batch", "none"] = Field("batch", description="Normalisation between layers.")


class Discriminator(Model):
    """Scores samples; with a Wasserstein loss this is the critic."""

    architecture: Literal["dcgan", "mlp"] = Field("dcgan", description="dcgan for images, mlp for points.")
    channels: Width = Field(64, description="Feature maps at full resolution (dcgan) or units of a hidden layer (mlp).")
    layers: Layers = Field(3, description="Hidden layers.")
    normalization: Literal["batch", "none"] = Field("none", description="Normalisation between layers.")
    spectral_norm: bool = Field(False, description="Divide each weight by its largest singular value (Miyato et al., 2018).")


class GanLoss(Model):
    """What generator and discriminator minimise."""

    type: Literal["bce", "wgan-gp", "hinge", "lsgan"] = Field(
        "bce", description="bce is the non-saturating loss of Goodfellow et al. (2014), lsgan least squares (Mao et al., 2017)."
    )
    gradient_penalty: Annotated[float, Field(ge=0, le=1e6), only(type="wgan-gp", harmless=(0.0,))] = Field(
        10.0, description="Weight of the gradient penalty."
    )
    critic_steps: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Discriminator steps per generator step; 5 is usual with wgan-gp."
    )


class Gan(Model):
    """A generative adversarial network: engines `generator` and `discriminator`."""

    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    loss: GanLoss = GanLoss()


def networks_agree(gan: Gan) -> Iterator[Breach]:
    generator, discriminator = gan.generator.architecture, gan.discriminator.architecture
    if generator != discriminator:
        what = f"a {discriminator} discriminator cannot judge what a {generator} generator makes"
        yield Breach(("discriminator", "architecture"), what, "one handles images, the other points", f"use {generator} for both")


def critic_without_batch_norm(gan: Gan) -> Iterator[Breach]:
    if gan.loss.type == "wgan-gp" and gan.loss.gradient_penalty != 0 and gan.discriminator.normalization == "batch":
        what = "a critic with gradient penalty takes no batch normalisation"
        why = "the penalty is on each sample's own gradient, and batch normalisation mixes the samples (Gulrajani et al., 2017, section 4)"
        yield Breach(("discriminator", "normalization"), what, why, "use normalization: none")


RULES = (
    Rule(
        "spec.gan",
        "GTJ0108",
        networks_agree,
        "self.generator.architecture == self.discriminator.architecture",
        "generator and discriminator need the same architecture",
    ),
    Rule(
        "spec.gan",
        "GTJ0108",
        critic_without_batch_norm,
        "self.loss.type != 'wgan-gp' || self.loss.gradientPenalty == 0.0 || self.discriminator.normalization != 'batch'",
        "a critic with gradient penalty takes no batch normalisation: use discriminator.normalization: none",
    ),
)
