"""A variational auto-encoder, as users write it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, Width


class VaeNetwork(Model):
    architecture: Literal["conv", "mlp"] = Field("conv", description="conv for images, mlp for points.")
    latent_dim: Width = Field(16, description="Dimension of the latent z.")
    channels: Width = Field(32, description="Feature maps at full resolution (conv) or units of a hidden layer (mlp).")
    layers: Annotated[int, Field(ge=1, le=16)] = Field(2, description="Hidden layers (mlp only).")


class VaeLoss(Model):
    reconstruction: Literal["mse", "bce"] = Field("mse", description="Likelihood of a pixel: Gaussian (mse) or Bernoulli (bce).")
    beta: Annotated[float, Field(ge=0, le=1e6)] = Field(1.0, description="Weight of the KL term (Higgins et al., 2017).")


class Vae(Model):
    """A variational auto-encoder: engine `autoencoder`."""

    network: VaeNetwork = VaeNetwork()
    loss: VaeLoss = VaeLoss()
