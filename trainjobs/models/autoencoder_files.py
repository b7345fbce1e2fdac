"""What an autoencoder-kl is as files that diffusers reads: its configuration, and the name of its weights. Plain data."""

from __future__ import annotations

from typing import Any

from trainjobs.api.vae import VaeNetwork

CLASS = "AutoencoderKL"
WEIGHTS = "diffusion_pytorch_model"  # and .safetensors


def configuration(network: VaeNetwork, channels: int, size: int, scaling_factor: float) -> dict[str, Any]:
    """config.json: the arguments of diffusers' AutoencoderKL that make the network, for pictures of that many channels and pixels."""
    levels = len(network.multipliers)
    return {
        "_class_name": CLASS,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [network.channels * multiplier for multiplier in network.multipliers],
        "layers_per_block": network.blocks,
        "act_fn": "silu",
        "latent_channels": network.latent_channels,
        "norm_num_groups": network.groups,
        "sample_size": size,
        "scaling_factor": scaling_factor,
        "force_upcast": True,
        "mid_block_add_attention": network.attention,
    }
