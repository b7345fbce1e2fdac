"""Latent diffusion: what a diffusion model learns of, instead of pixels, as users write it; and the rules that come with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from trainjobs.api import uris
from trainjobs.api.fields import Model
from trainjobs.api.rule import Breach

HUB = r"^hf://[^/@]+/[^/@]+(@[^/@]+)?/?$"
KEPT = ("horizontalFlip",)  # changes of pictures whose latents are kept, too
AutoencoderUri = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^(file://|s3://|gs://|az://|hf://).+$")]


class Latents(Model):
    """What is diffused are latents of a frozen autoencoder, which are smaller than pictures (Rombach et al., 2022)."""

    autoencoder: AutoencoderUri = Field(
        description="The autoencoder: a run, a checkpoint or an export of a job with architecture autoencoder-kl, or a folder of diffusers "
        "with an AutoencoderKL, by itself or in vae/ (file://, s3://, gs://, az://, hf://organisation/name[@revision]); only "
        "safetensors are read [pretrained_vae_model_name_or_path]."
    )
    cache: bool = Field(
        True,
        description="Encodes every picture once, before the first step, and keeps mean and variance; else each batch anew. What is trained "
        "is the same to the last bit [cache_latents, cache_latents_to_disk].",
    )


def lies_somewhere(uri: str) -> Iterator[Breach]:
    """What is wrong with the URI of an autoencoder."""
    if uris.relative(uri):
        why = "it is resolved where the manifest lies, by gtj run and gtj validate; a cluster has no such folder"
        yield Breach((), f"{uri} is a relative path", why, "copy the autoencoder to a bucket and name that, or name an absolute path")
        return
    found = list(uris.location(uri))
    yield from found
    if not found and uri.startswith("hf://") and not _hub(uri):
        yield Breach((), f"{uri} names no model", how="write hf://organisation/name, or hf://organisation/name@revision")


def _hub(uri: str) -> bool:
    repo, _, revision = uri.removeprefix("hf://").rstrip("/").partition("@")
    return repo.count("/") == 1 and "/" not in revision


USABLE = f"self.startsWith('hf://') ? self.matches(r'{HUB}') && {uris.CLEAN} : {uris.SOURCE.partition(' : ')[2]}"
