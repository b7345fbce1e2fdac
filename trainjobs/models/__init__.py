"""The networks we own, and adapters to transformers' models. `build_networks` makes those of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.families import Diffusion, Gan, Language, Vae
from trainjobs.api.job import Spec
from trainjobs.models import dcgan, mlp, vae
from trainjobs.models.unet import UNet

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def build_networks(spec: Spec, info: DataInfo) -> dict[str, nn.Module]:
    """The networks of every family but custom, named as in `api.job.NETWORKS`, with random weights from torch's global generator:
    the caller seeds it. JobError GTJ0108 when network and data do not go together."""
    if spec.gan is not None:
        return _gan(spec.gan, info)
    if spec.vae is not None:
        return _vae(spec.vae, info)
    if spec.diffusion is not None:
        return _diffusion(spec.diffusion, info)
    assert spec.language is not None, "custom networks come from the user's own build()"
    return _language(spec.language, info)


def _gan(gan: Gan, info: DataInfo) -> dict[str, nn.Module]:
    g, d = gan.generator, gan.discriminator
    generator: nn.Module
    discriminator: nn.Module
    if g.architecture == "dcgan":
        channels, size = _image("gan.generator.architecture", g.architecture, info)
        generator = dcgan.Generator(
            latent_dim=g.latent_dim, channels=g.channels, size=size, image_channels=channels, batch_norm=g.normalization == "batch"
        )
    else:
        generator = mlp.Generator(
            latent_dim=g.latent_dim,
            channels=g.channels,
            depth=g.layers,
            dimension=_point("gan.generator.architecture", g.architecture, info),
            batch_norm=g.normalization == "batch",
        )
    if d.architecture == "dcgan":
        channels, size = _image("gan.discriminator.architecture", d.architecture, info)
        discriminator = dcgan.Discriminator(
            channels=d.channels, size=size, image_channels=channels, batch_norm=d.normalization == "batch", spectral=d.spectral_norm
        )
    else:
        discriminator = mlp.Discriminator(
            channels=d.channels,
            depth=d.layers,
            dimension=_point("gan.discriminator.architecture", d.architecture, info),
            batch_norm=d.normalization == "batch",
            spectral=d.spectral_norm,
        )
    return {"generator": generator, "discriminator": discriminator}


def _vae(family: Vae, info: DataInfo) -> dict[str, nn.Module]:
    network = family.network
    encoder: nn.Module
    decoder: nn.Module
    if network.architecture == "conv":
        channels, size = _image("vae.network.architecture", network.architecture, info)
        encoder = vae.Encoder(latent_dim=network.latent_dim, channels=network.channels, size=size, image_channels=channels)
        decoder = vae.Decoder(latent_dim=network.latent_dim, channels=network.channels, size=size, image_channels=channels)
    else:
        dimension = _point("vae.network.architecture", network.architecture, info)
        encoder = mlp.Encoder(latent_dim=network.latent_dim, channels=network.channels, depth=network.layers, dimension=dimension)
        decoder = mlp.Decoder(latent_dim=network.latent_dim, channels=network.channels, depth=network.layers, dimension=dimension)
    return {"autoencoder": vae.Autoencoder(encoder, decoder)}


def _diffusion(family: Diffusion, info: DataInfo) -> dict[str, nn.Module]:
    network = family.network
    channels, size = _image("diffusion.network.architecture", network.architecture, info)
    halvings = len(network.multipliers) - 1
    if size % 2**halvings or size < 2 ** (halvings + 1):
        raise JobError(
            "GTJ0108",
            f"{len(network.multipliers)} resolutions do not fit images of {size} pixels",
            where="diffusion.network.multipliers",
            why=f"each entry after the first halves the resolution, and {size} pixels can be halved {size.bit_length() - 2} times",
            how="Give fewer multipliers, or a larger images.size",
        )
    return {
        "denoiser": UNet(
            image_channels=channels,
            channels=network.channels,
            multipliers=network.multipliers,
            blocks=network.blocks,
            attention=network.attention,
        )
    }


def _language(family: Language, info: DataInfo) -> dict[str, nn.Module]:
    from trainjobs.models.transformer import causal_language_model

    network = family.network
    if info.kind != "text" or info.vocabulary is None or info.tokenizer is None:
        raise _mismatch("language", "a language model", "text", info)
    if network.hidden % network.heads:
        raise JobError(
            "GTJ0108",
            f"{network.heads} heads do not divide {network.hidden} hidden units",
            where="language.network.heads",
            how="Choose hidden as a multiple of heads",
        )
    if network.architecture == "llama" and network.hidden // network.heads % 2:
        raise JobError(
            "GTJ0108",
            f"a head of {network.hidden // network.heads} units is odd",
            where="language.network.heads",
            why="rotary positions turn pairs of units",
            how="Choose hidden / heads even",
        )
    return {"model": causal_language_model(network, info.vocabulary, info.tokenizer.end)}


def _image(where: str, architecture: str, info: DataInfo) -> tuple[int, int]:
    """(channels, size) of the images; sizes are powers of two from 8, by the API."""
    if info.kind != "image":
        raise _mismatch(where, architecture, "images", info)
    channels, size, _ = info.shape
    return channels, size


def _point(where: str, architecture: str, info: DataInfo) -> int:
    if info.kind != "point":
        raise _mismatch(where, architecture, "points", info)
    return info.shape[0]


def _mismatch(where: str, architecture: str, wanted: str, info: DataInfo) -> JobError:
    held = {"image": "images", "point": "points", "text": "text"}[info.kind]
    return JobError(
        "GTJ0108",
        f"{architecture} is for {wanted}, but the data are {held}",
        where=where,
        how="Choose the architecture for this kind of data, or another data.source",
    )
