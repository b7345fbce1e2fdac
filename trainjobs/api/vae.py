"""A variational auto-encoder, as users write it."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, PositiveInt, Width
from trainjobs.api.only import only
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule

# What the networks of each architecture encode.
KL = "autoencoder-kl"
LEARNS = {"conv": "image", KL: "image", "mlp": "point"}
KL_BETA = 1e-6  # Rombach et al., 2022, section 3.1 and their code's kl_weight


class VaeNetwork(Model):
    """Encoder and decoder."""

    architecture: Literal["conv", "mlp", "autoencoder-kl"] = Field(
        "conv",
        description="conv for images, mlp for points; autoencoder-kl for images whose latents a diffusion model shall learn: that of "
        "Stable Diffusion (Rombach et al., 2022) [AutoencoderKL].",
    )
    latent_dim: Annotated[
        Width, only(architecture=("conv", "mlp"), because="whose latents are maps: latentChannels and multipliers say how large")
    ] = Field(16, description="Dimension of the latent z.")
    channels: Width = Field(
        32,
        description="Feature maps at full resolution (conv, autoencoder-kl) or units of a hidden layer (mlp) [block_out_channels: this "
        "times multipliers].",
    )
    layers: Annotated[int, Field(ge=1, le=16), only(architecture="mlp", because="whose depth follows from the image size")] = Field(
        2, description="Hidden layers."
    )
    multipliers: Annotated[
        list[Annotated[int, Field(ge=1, le=16)]],
        Field(min_length=1, max_length=6),
        only(architecture=KL, because="whose depth follows from the image size or is that of layers"),
    ] = Field(
        [1, 2, 4, 4],
        description="Feature maps of each resolution, as multiples of channels; each entry after the first halves the resolution, so a "
        "latent is 8 times smaller with four [block_out_channels].",
    )
    blocks: Annotated[int, Field(ge=1, le=8), only(architecture=KL, because="which has no residual blocks")] = Field(
        2, description="Residual blocks per resolution, and one more in the decoder [layers_per_block]."
    )
    latent_channels: Annotated[int, Field(ge=1, le=64), only(architecture=KL, because="whose latents are vectors of latentDim")] = Field(
        4, description="Channels of a latent [latent_channels]."
    )
    groups: Annotated[int, Field(ge=1, le=64), only(architecture=KL, because="which has no group norm")] = Field(
        32, description="Groups of the group norms, of which channels is a multiple [norm_num_groups]."
    )
    attention: Annotated[bool, only(architecture=KL, because="which has no attention")] = Field(
        True, description="Self-attention at the lowest resolution [mid_block_add_attention]."
    )

    @property
    def factor(self) -> int:
        """How many times smaller than a picture a latent of autoencoder-kl is."""
        return 1 << (len(self.multipliers) - 1)


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

    reconstruction: Literal["mse", "l1", "bce"] = Field(
        "mse", description="Likelihood of a pixel: Gaussian (mse), Laplace (l1) or Bernoulli (bce) [rec_loss, reconstruction_loss]."
    )
    beta: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        None,
        description="Weight of the KL term (Higgins et al., 2017) [kl_weight, kl_scale]; default: 1, which makes the loss a bound, and "
        "1e-6 with autoencoder-kl. The held-out loss counts all of it at every step.",
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
        yield Breach(("loss", "reconstruction"), "bce cannot score points", why, "use mse or l1")


def decodes_to_pixels(vae: Vae) -> Iterator[Breach]:
    if vae.network.architecture == KL and vae.loss.reconstruction == "bce":
        why = "its decoder makes pictures for others, and with bce it would make logits"
        yield Breach(("loss", "reconstruction"), "bce with autoencoder-kl", why, "use mse or l1", beside=("network", "architecture"))


def groups_divide(network: VaeNetwork) -> Iterator[Breach]:
    wide = [network.channels * multiplier for multiplier in network.multipliers]
    if network.architecture == KL and any(channels % network.groups for channels in wide):
        what = f"{listed(wide, 'and')} feature maps in {network.groups} groups"
        how = f"make channels a multiple of {network.groups}, or groups a divisor of {gcd(*wide)}"
        yield Breach(("groups",), what, "a group norm takes as many of each", how, beside=("channels",))


RULES = (
    Rule(
        "spec.vae",
        "GTJ0108",
        likelihood_fits,
        "self.network.architecture != 'mlp' || self.loss.reconstruction != 'bce'",
        "bce cannot score points: use mse or l1",
    ),
    Rule(
        "spec.vae",
        "GTJ0108",
        decodes_to_pixels,
        f"self.network.architecture != '{KL}' || self.loss.reconstruction != 'bce'",
        "bce with autoencoder-kl, whose decoder makes pictures: use mse or l1",
    ),
    Rule(
        "spec.vae.network",
        "GTJ0108",
        groups_divide,
        f"self.architecture != '{KL}' || self.multipliers.all(m, (self.channels * m) % self.groups == 0)",
        "network.channels times each of network.multipliers must be a multiple of network.groups",
    ),
)
