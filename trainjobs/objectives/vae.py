"""Variational auto-encoders: the negative evidence lower bound of one sample x, averaged over the batch.

L = -E_{q(z|x)} log p(x|z) + beta KL(q(z|x) || N(0, I)),   q(z|x) = N(mean, diag(exp(logvar))),   z = mean + exp(logvar / 2) eps

KL   = 1/2 sum_j (mean_j^2 + exp(logvar_j) - 1 - logvar_j)
mse  -log p(x|z) = 1/2 ||x - x'||^2: a Gaussian of unit variance around the decoder's output x', without its constant D/2 log(2 pi)
bce  -log p(x|z) = sum_i softplus(l_i) - p_i l_i: Bernoulli, with the decoder's output as logits l and pixels p = (x + 1) / 2 in [0, 1]

Kingma and Welling, "Auto-encoding variational Bayes", 2014 (arXiv 1312.6114, equation 10 and appendix B), with one eps per sample;
beta: Higgins et al., "beta-VAE", 2017. Sums over elements and latents, means over samples: with beta 1 this is a bound in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.job import Spec
from trainjobs.api.vae import Vae, VaeLoss
from trainjobs.data.kinds import image, point
from trainjobs.models import mlp, vae
from trainjobs.noise import Noise
from trainjobs.objectives.phase import Batch, Model, Phase, Samples, model, over

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


@dataclass(frozen=True)
class VaeObjective:
    """`autoencoder(eps, x)` returns (output, mean, logvar); `autoencoder(eps)` decodes a sample of the prior."""

    autoencoder: nn.Module
    loss: VaeLoss
    latent_dim: int
    kind: Literal["image", "point"]

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="autoencoder", loss=self.bound),)

    @property
    def highest_stage(self) -> int:
        return 3

    def bound(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self._bound(batch, batch.noise)

    def _bound(self, batch: Batch, noise: Noise) -> tuple[Tensor, Mapping[str, Tensor]]:
        x = batch.data[self.kind].float()
        output, mean, logvar = self.autoencoder(noise.normal("z", self.latent_dim), x)
        rebuilt = reconstruction(x, output, self.loss.reconstruction).mean()
        divergence = kl(mean, logvar).mean()
        loss = rebuilt + self.loss.beta * divergence
        return loss, {"loss": loss.detach(), "reconstruction": rebuilt.detach(), "kl": divergence.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The loss with each sample's noise the same at every evaluation, so that two evaluations differ by the weights alone."""
        loss, _ = self._bound(batch, Noise.of(0, 0, "heldout", batch.noise.samples))
        return {"loss": over(loss, batch.size)}

    def sample(self, batch: Batch) -> Samples:
        output: Tensor = self.autoencoder(batch.noise.normal("z", self.latent_dim))[0]
        return self._seen(output)

    def reconstruct(self, batch: Batch) -> Samples:
        """Decoded from the mean of q(z|x)."""
        x = batch.data[self.kind].float()
        output: Tensor = self.autoencoder(x.new_zeros(len(x), self.latent_dim), x)[0]
        return self._seen(output)

    def _seen(self, output: Tensor) -> Samples:
        if self.loss.reconstruction == "bce":
            output = 2.0 * output.sigmoid() - 1.0
        return Samples(images=output.clamp(-1.0, 1.0)) if self.kind == "image" else Samples(points=output)


def reconstruction(x: Tensor, output: Tensor, likelihood: Literal["mse", "bce"]) -> Tensor:
    """-log p(x|z) of each sample, float [B]."""
    if likelihood == "mse":
        return 0.5 * (x - output).square().flatten(1).sum(dim=1)
    return F.binary_cross_entropy_with_logits(output, 0.5 * (x + 1.0), reduction="none").flatten(1).sum(dim=1)


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, diag(exp(logvar))) || N(0, I)) of each sample, float [B]."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=1)


def networks(family: Vae, info: DataInfo) -> dict[str, nn.Module]:
    network = family.network
    encoder: nn.Module
    decoder: nn.Module
    if network.architecture == "conv":
        channels, size = image("vae.network.architecture", network.architecture, info)
        encoder = vae.Encoder(latent_dim=network.latent_dim, channels=network.channels, size=size, image_channels=channels)
        decoder = vae.Decoder(latent_dim=network.latent_dim, channels=network.channels, size=size, image_channels=channels)
    else:
        dimension = point("vae.network.architecture", network.architecture, info)
        encoder = mlp.Encoder(latent_dim=network.latent_dim, channels=network.channels, depth=network.layers, dimension=dimension)
        decoder = mlp.Decoder(latent_dim=network.latent_dim, channels=network.channels, depth=network.layers, dimension=dimension)
    return {"autoencoder": vae.Autoencoder(encoder, decoder)}


def build(spec: Spec, info: DataInfo) -> Model:
    """The autoencoder and its bound."""
    assert spec.vae is not None
    made = networks(spec.vae, info)
    assert info.kind != "text"
    return model(made, VaeObjective(made["autoencoder"], spec.vae.loss, spec.vae.network.latent_dim, info.kind))
