"""What is exported of an autoencoder-kl: a folder that diffusers' AutoencoderKL.from_pretrained loads. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainjobs.api.vae import KL, Vae
from trainjobs.models.autoencoder_files import WEIGHTS as WEIGHTS
from trainjobs.models.autoencoder_files import configuration

FOLDER = "vae"  # of an export of a diffusion model of latents, as in diffusers' pipelines

CONFIG = "config.json"


def is_one(spec: Mapping[str, Any]) -> bool:
    """Whether that is what a commit's weights belong to."""
    return bool(spec.get("vae")) and spec["vae"].get("network", {}).get("architecture") == KL


def told(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Its config.json. `scaling_factor` is what the last evaluation before the checkpoint measured, 1 where there was none."""
    spec = metadata["spec"]
    images, network = spec["images"], Vae.model_validate(spec["vae"]).network
    measured = (metadata.get("objective") or {}).get("scaling_factor", 1.0)
    return configuration(network, images["channels"], images["size"], float(measured))
