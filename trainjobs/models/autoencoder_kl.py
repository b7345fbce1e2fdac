"""The autoencoder of latent diffusion (Rombach et al., "High-resolution image synthesis with latent diffusion models", 2022, arXiv
2112.10752), as diffusers has it: AutoencoderKL. Its parameters have diffusers' names, so what is trained here is loaded there.

Encoder and decoder are residual blocks with group norm, an attention at the lowest resolution, and a 1 x 1 convolution on either side of
the latent. Everything goes through the one `forward`, for ZeRO-3 (see vae.py). diffusers is imported with this module, which is why others
import it late.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.vae import VaeNetwork
from trainjobs.models.autoencoder_files import CLASS, configuration


class Autoencoder(nn.Module):
    """Encodes, draws a latent with the noise given, decodes: the interface of vae.Autoencoder. Latents are maps, flat outside of it."""

    def __init__(self, network: VaeNetwork, *, channels: int, size: int) -> None:
        super().__init__()
        whole = AutoencoderKL(**arguments(configuration(network, channels, size, scaling_factor=1.0)))
        self.encoder, self.decoder = whole.encoder, whole.decoder
        self.quant_conv, self.post_quant_conv = whole.quant_conv, whole.post_quant_conv
        self.shape = (network.latent_channels, size // network.factor, size // network.factor)

    def forward(self, noise_BZ: Tensor, x_BCHW: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(reconstruction of x, mean [B, Z], logvar [B, Z]), all float32; without x, what the prior N(0, I) decodes to.

        logvar is clamped to [-30, 20], as by diffusers.
        """
        if x_BCHW is None:
            mean = logvar = torch.zeros_like(noise_BZ)
        else:
            moments: Tensor = self.quant_conv(self.encoder(x_BCHW))
            mean, logvar = (part.float().flatten(1) for part in moments.chunk(2, dim=1))
            logvar = logvar.clamp(-30.0, 20.0)
        z = (mean + (0.5 * logvar).exp() * noise_BZ).view(-1, *self.shape)
        output: Tensor = self.decoder(self.post_quant_conv(z))
        return output.float(), mean, logvar


def arguments(told: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the class, of a config.json."""
    return {name: value for name, value in told.items() if not name.startswith("_")}


def loaded(folder: Path, where: str) -> AutoencoderKL:
    """The whole autoencoder of a folder as diffusers' save_pretrained writes it: fp32, in eval mode, without gradients.

    JobError GTJ0109 for one of another class, or whose weights are not its configuration's. `where` names it.
    """
    try:
        told = json.loads((folder / "config.json").read_bytes())
        made = told["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why, how = repr(error)[:200], "name a folder that diffusers' save_pretrained or gtj checkpoints export wrote"
        raise JobError("GTJ0109", "the autoencoder has no configuration", where=where, why=why, how=how) from error
    if made != CLASS:
        why = f"it is a {made}"
        raise JobError("GTJ0109", f"the autoencoder is no {CLASS}", where=where, why=why, how=f"name one of that class: {CLASS}")
    try:
        # Its random weights are replaced: the generator that the job's own are drawn from stays where it is.
        with torch.random.fork_rng(devices=[]):
            found = AutoencoderKL.from_pretrained(str(folder), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False)
    except Exception as error:  # diffusers and safetensors meet broken files with OSError, ValueError, RuntimeError and their own
        why = re.sub(r"\s+", " ", str(error))[:300]
        raise JobError("GTJ0109", "the autoencoder cannot be loaded", where=where, why=why, how="fetch or export it again") from error
    whole: AutoencoderKL = found.float().eval().requires_grad_(False)
    return whole
