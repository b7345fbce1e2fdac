"""A variational auto-encoder, as users write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, PositiveInt, Width
from trainjobs.api.only import only
from trainjobs.api.rule import Breach, Rule

# What the networks of each architecture encode.
LEARNS = {"conv": "image", "mlp": "point"}


class VaeNetwork(Model):
    """Encoder and decoder."""

    architecture: Literal["conv", "mlp"] = Field("conv", description="conv for images, mlp for points.")
    latent_dim: Width = Field(16, description="Dimension of the latent z.")
    channels: Width = Field(32, description="Feature maps at full resolution (conv) or units of a hidden layer (mlp).")
    layers: Annotated[int, Field(ge=1, le=16), only(architecture="mlp", because="whose depth follows from the image size")] = Field(
        2, description="Hidden layers."
    )


class Annealing(Model):
    """How the weight of the KL term rises to beta."""

    type: Literal["linear", "cyclical"] = Field(
        "linear",
        description="linear rises once (Bowman et al., 2016); cyclical rises in the first half of each cycle and stays at beta in the "
        "second (Fu et al., 2019).",
    )
    steps: PositiveInt = Field(description="Steps until it stays at beta [kl_anneal_steps, warmup].")
    cycles: Annotated[int, Field(ge=1, le=1000), only(type="cyclical")] = Field(4, description="Rises within those steps [n_cycle].")


class VaeLoss(Model):
    """The evidence lower bound: reconstruction and KL term."""

    reconstruction: Literal["mse", "bce"] = Field("mse", description="Likelihood of a pixel: Gaussian (mse) or Bernoulli (bce).")
    beta: Annotated[float, Field(ge=0, le=1e6)] = Field(
        1.0, description="Weight of the KL term (Higgins et al., 2017) [kl_weight]. The held-out loss counts all of it at every step."
    )
    annealing: Annealing | None = Field(None, description="How the weight rises to beta; without, it is beta from the first step on.")
    free_bits: Annotated[float, Field(ge=0, le=1e3)] = Field(
        0.0,
        description="Nats of each latent dimension that cost a sample nothing: a smaller KL counts as this much (Kingma et al., 2016, for "
        "means over a batch) [free_nats, kl_threshold]. Not in the held-out loss.",
    )


class Vae(Model):
    """A variational auto-encoder: engine `autoencoder`."""

    network: VaeNetwork = VaeNetwork()
    loss: VaeLoss = VaeLoss()


def likelihood_fits(vae: Vae) -> Iterator[Breach]:
    if vae.network.architecture == "mlp" and vae.loss.reconstruction == "bce":
        why = "a Bernoulli likelihood needs values from 0 to 1, such as pixels"
        yield Breach(("loss", "reconstruction"), "bce cannot score points", why, "use mse")


RULES = (
    Rule(
        "spec.vae",
        "GTJ0108",
        likelihood_fits,
        "self.network.architecture != 'mlp' || self.loss.reconstruction != 'bce'",
        "bce cannot score points: use mse",
    ),
)
