"""A generative adversarial network, as users write it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, Width


class Generator(Model):
    """Maps latents z ~ N(0, I) to samples."""

    architecture: Literal["dcgan", "mlp"] = Field("dcgan", description="dcgan for images, mlp for points.")
    latent_dim: Width = Field(64, description="Dimension of the latent z.")
    channels: Width = Field(64, description="Feature maps at full resolution (dcgan) or units of a hidden layer (mlp).")
    layers: Annotated[int, Field(ge=1, le=16)] = Field(3, description="Hidden layers (mlp only).")
    normalization: Literal["batch", "none"] = Field("batch", description="Normalisation between layers.")


class Discriminator(Model):
    """Scores samples; with a Wasserstein loss this is the critic."""

    architecture: Literal["dcgan", "mlp"] = Field("dcgan", description="dcgan for images, mlp for points.")
    channels: Width = Field(64, description="Feature maps at full resolution (dcgan) or units of a hidden layer (mlp).")
    layers: Annotated[int, Field(ge=1, le=16)] = Field(3, description="Hidden layers (mlp only).")
    normalization: Literal["batch", "none"] = Field("none", description="Normalisation between layers.")
    spectral_norm: bool = Field(False, description="Divide each weight by its largest singular value (Miyato et al., 2018).")


class GanLoss(Model):
    type: Literal["bce", "wgan-gp", "hinge"] = Field("bce", description="bce is the non-saturating loss of Goodfellow et al. (2014).")
    gradient_penalty: Annotated[float, Field(ge=0, le=1e6)] = Field(10.0, description="Weight of the gradient penalty (wgan-gp only).")
    critic_steps: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Discriminator steps per generator step; 5 is usual with wgan-gp."
    )


class Gan(Model):
    """A generative adversarial network: engines `generator` and `discriminator`."""

    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    loss: GanLoss = GanLoss()
