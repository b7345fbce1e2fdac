"""The network of a diffusion model, and what it is told beside the time, as users write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, Width
from trainjobs.api.only import only
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule


class Denoiser(Model):
    """The network that removes noise."""

    architecture: Literal["unet", "dit"] = Field(
        "unet",
        description="unet: residual blocks and self-attention at the lowest resolution. dit: a transformer over patches, with adaLN-Zero "
        "(Peebles and Xie, 2023) [DiTTransformer2DModel].",
    )
    channels: Annotated[Width, only(architecture="unet")] = Field(32, description="Feature maps at full resolution.")
    multipliers: Annotated[list[Annotated[int, Field(ge=1, le=16)]], Field(min_length=1, max_length=6), only(architecture="unet")] = Field(
        [1, 2], description="Feature maps of each resolution, as multiples of channels; each entry after the first halves the resolution."
    )
    blocks: Annotated[int, Field(ge=1, le=8), only(architecture="unet")] = Field(1, description="Residual blocks per resolution.")
    attention: Annotated[bool, only(architecture="unet")] = Field(
        True, description="Self-attention at the lowest resolution, or at those of attentionResolutions."
    )
    attention_resolutions: Annotated[
        list[Annotated[int, Field(ge=1, le=1024)]], Field(max_length=6), only(architecture="unet"), only(attention=True)
    ] = Field(
        [],
        description="Sizes of the feature maps, in pixels, at which there is attention, instead of the lowest one [attention_resolutions].",
    )
    hidden: Annotated[int, Field(ge=16, le=4096), only(architecture="dit")] = Field(
        384,
        description="Width of the transformer, a multiple of 4 and of heads: 384 for DiT-S, 768 B, 1024 L, 1152 XL [hidden_size].",
    )
    layers: Annotated[int, Field(ge=1, le=96), only(architecture="dit")] = Field(
        12, description="Blocks: 12 for DiT-S and B, 24 L, 28 XL [depth, num_layers]."
    )
    heads: Annotated[int, Field(ge=1, le=64), only(architecture="dit")] = Field(
        6, description="Heads of attention: 6 for DiT-S, 12 B, 16 L and XL [num_attention_heads]."
    )
    patch: Annotated[Literal[1, 2, 4, 8], only(architecture="dit")] = Field(2, description="Side of a patch, in pixels [patch_size].")


class Conditioning(Model):
    """What samples are drawn for: a class, or a text. The network learns both with it and without it, for guidance."""

    type: Literal["class", "text"] = Field(
        description="class: data.columns.label or data.labels. text: data.columns.caption, by a text encoder that is trained along "
        "[class_embed_type, encoder_hid_dim_type]."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1,
        description="Share of the samples that are trained on without their condition (Ho and Salimans, 2022) [class_dropout_prob, "
        "caption_dropout, proportion_empty_prompts, p_uncond].",
    )
    length: Annotated[int, Field(ge=8, le=512), only(type="text")] = Field(
        64, description="Bytes of the longest caption, each of which is a token [max_length, model_max_length]."
    )
    width: Annotated[int, Field(ge=16, le=2048), only(type="text")] = Field(
        128, description="Width of the text encoder, a multiple of heads [hidden_size, cross_attention_dim]."
    )
    layers: Annotated[int, Field(ge=1, le=24), only(type="text")] = Field(2, description="Layers of the text encoder [num_hidden_layers].")
    heads: Annotated[int, Field(ge=1, le=32), only(type="text")] = Field(4, description="Heads of the text encoder [num_attention_heads].")


# What must hold of spec.diffusion.network and spec.data.images.size together; learners.py makes a rule of it.
_NETWORK = "self.diffusion.network"
RESOLUTIONS_FIT = (
    f"({_NETWORK}.architecture == 'dit' ? {_NETWORK}.patch < self.data.images.size : "
    f"[1, 2, 4, 8, 16, 32, 64][{_NETWORK}.multipliers.size()] <= self.data.images.size && "
    f"self.data.images.size % [1, 1, 2, 4, 8, 16, 32][{_NETWORK}.multipliers.size()] == 0)"
)
ATTENTION_FITS = (
    f"{_NETWORK}.attentionResolutions.all(r, [1, 2, 4, 8, 16, 32].exists(k, r * k == self.data.images.size && "
    f"k < [1, 2, 4, 8, 16, 32, 64][{_NETWORK}.multipliers.size()]) && {_NETWORK}.attentionResolutions.exists_one(q, q == r))"
)


def resolutions_fit(network: Denoiser, size: int) -> Iterator[Breach]:
    """Whether images of that size can be halved as often as the network does, or cut into patches."""
    if network.architecture == "dit":
        if network.patch >= size or size % network.patch:  # of pictures each size is a multiple of each patch, of latents not
            what = f"patches of {network.patch} pixels, of images of {size}"
            why = "a transformer needs several of them" if network.patch >= size else "they do not divide"
            yield Breach(("patch",), what, why, "use smaller patches, or larger images")
        return
    levels, most = len(network.multipliers), 1
    while size % 2**most == 0 and size >> most >= 2:
        most += 1
    if levels > most:
        what = f"{levels} multipliers halve images of {size} pixels {levels - 1} times, to {size / 2 ** (levels - 1):g}"
        how = f"give at most {most} multipliers, or images of another size"
        yield Breach(("multipliers",), what, "the lowest resolution must keep 2 whole pixels a side", how)


def attention_has_place(network: Denoiser, size: int) -> Iterator[Breach]:
    """Whether the network has maps of the sizes at which it shall attend."""
    known = [size >> level for level in range(len(network.multipliers))]
    for index, resolution in enumerate(network.attention_resolutions):
        twice = resolution in network.attention_resolutions[:index]
        if twice or resolution not in known:
            what = f"the unet has {'attention' if twice else 'no feature map'} of {resolution} pixels{' twice' if twice else ''}"
            why = "" if twice else f"for images of {size} its maps have {listed(known, 'and')}"
            yield Breach(("attentionResolutions", index), what, why, "take one out" if twice else f"use {listed(known)}")


def heads_divide(network: Denoiser) -> Iterator[Breach]:
    if network.architecture == "dit" and (network.hidden % network.heads or network.hidden % 4):
        what = f"a width of {network.hidden} does not divide by {'4' if network.hidden % 4 else f'{network.heads} heads'}"
        how = f"nearest width that does: {-(-network.hidden // (4 * network.heads)) * 4 * network.heads}"
        yield Breach(("hidden",), what, "each head takes an equal share, and places are told by four waves each", how)


def encoder_divides(conditioning: Conditioning) -> Iterator[Breach]:
    if conditioning.width % conditioning.heads:
        what = f"a width of {conditioning.width} does not divide by {conditioning.heads} heads"
        how = f"nearest width that does: {-(-conditioning.width // conditioning.heads) * conditioning.heads}"
        yield Breach(("width",), what, "each head of the text encoder takes an equal share", how)


RULES = (
    Rule(
        "spec.diffusion.network",
        "GTJ0108",
        heads_divide,
        "self.architecture != 'dit' || (self.hidden % self.heads == 0 && self.hidden % 4 == 0)",
        "network.hidden must be a multiple of network.heads and of 4",
    ),
    Rule(
        "spec.diffusion.conditioning",
        "GTJ0108",
        encoder_divides,
        "self.width % self.heads == 0",
        "conditioning.width must be a multiple of conditioning.heads",
    ),
)
