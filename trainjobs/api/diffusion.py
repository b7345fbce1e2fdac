"""A diffusion model, as users write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, Width
from trainjobs.api.rule import Breach, Rule


class UNet(Model):
    """The network that removes noise."""

    architecture: Literal["unet"] = Field("unet", description="A UNet with residual blocks and self-attention at the lowest resolution.")
    channels: Width = Field(32, description="Feature maps at full resolution.")
    multipliers: Annotated[list[Annotated[int, Field(ge=1, le=16)]], Field(min_length=1, max_length=6)] = Field(
        [1, 2], description="Feature maps of each resolution, as multiples of channels; each entry after the first halves the resolution."
    )
    blocks: Annotated[int, Field(ge=1, le=8)] = Field(1, description="Residual blocks per resolution.")
    attention: bool = Field(True, description="Self-attention at the lowest resolution.")


class DiffusionProcess(Model):
    """How noise is added, and what the network predicts of it."""

    prediction: Literal["epsilon", "v"] = Field(
        "epsilon", description="What the network predicts: the noise (Ho et al., 2020) or v (Salimans and Ho, 2022)."
    )
    schedule: Literal["linear", "cosine"] = Field(
        "cosine", description="Noise schedule: linear (Ho et al., 2020) or cosine (Nichol and Dhariwal, 2021)."
    )
    timesteps: Annotated[int, Field(ge=2, le=10000)] = Field(1000, description="Steps T of the forward process.")


DEFAULT_STEPS = 50


class Sampler(Model):
    """How samples are drawn."""

    name: Literal["ddim"] = Field("ddim", description="DDIM (Song et al., 2021).")
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        DEFAULT_STEPS, description="Network evaluations per sample, at most process.timesteps; of the default as many as there are."
    )
    eta: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="0 is deterministic, 1 is DDPM's variance.")


class Diffusion(Model):
    """A denoising diffusion model: engine `denoiser`."""

    network: UNet = UNet()
    process: DiffusionProcess = DiffusionProcess()
    sampler: Sampler = Sampler()


# What must hold of spec.diffusion.network and spec.data.images.size together; learners.py makes a rule of it.
RESOLUTIONS_FIT = "[1, 2, 4, 8, 16, 32, 64][self.diffusion.network.multipliers.size()] <= self.data.images.size"


def resolutions_fit(network: UNet, size: int) -> Iterator[Breach]:
    """Whether images of that size, a power of two, can be halved as often as the network does."""
    levels, most = len(network.multipliers), (size // 2).bit_length()
    if levels > most:
        what = f"{levels} multipliers halve images of {size} pixels {levels - 1} times, to {size >> (levels - 1)}"
        how = f"give at most {most} multipliers, or larger images"
        yield Breach(("multipliers",), what, "the lowest resolution must keep 2 pixels a side", how)


def timesteps_suffice(diffusion: Diffusion) -> Iterator[Breach]:
    """A sampler visits a timestep once. The default may be too many for few of them: the API server writes it out (notes.py tells)."""
    steps, timesteps = diffusion.sampler.steps, diffusion.process.timesteps
    if steps > timesteps and steps != DEFAULT_STEPS:
        what = f"a sampler of {steps} steps, and {timesteps} timesteps to take"
        how = f"use at most {timesteps} steps, or more timesteps"
        yield Breach(("sampler", "steps"), what, "each timestep is visited once at most", how, beside=("process", "timesteps"))


RULES = (
    Rule(
        "spec.diffusion",
        "GTJ0108",
        timesteps_suffice,
        f"self.sampler.steps <= self.process.timesteps || self.sampler.steps == {DEFAULT_STEPS}",
        "sampler.steps is more than process.timesteps: each timestep is visited once at most",
    ),
)
