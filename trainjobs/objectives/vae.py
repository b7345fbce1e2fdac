"""Variational auto-encoders: the negative evidence lower bound of one sample x, averaged over the batch.

L = -E_{q(z|x)} log p(x|z) + beta KL(q(z|x) || N(0, I)),   q(z|x) = N(mean, diag(exp(logvar))),   z = mean + exp(logvar / 2) eps

KL   = 1/2 sum_j (mean_j^2 + exp(logvar_j) - 1 - logvar_j)
mse  -log p(x|z) = 1/2 ||x - x'||^2: a Gaussian of unit variance around the decoder's output x', without its constant D/2 log(2 pi)
l1   -log p(x|z) = sum_i |x_i - x'_i|: Laplace of unit scale, without its constant D log 2
bce  -log p(x|z) = sum_i softplus(l_i) - p_i l_i: Bernoulli, with the decoder's output as logits l and pixels p = (x + 1) / 2 in [0, 1]

Annealing: beta rises from 0, once or in cycles (Bowman et al., "Generating sentences from a continuous space", 2016, arXiv 1511.06349,
section 3.1; Fu et al., "Cyclical annealing schedule", 2019, arXiv 1903.10145, equations 6 and 7, with R = 1/2).
Free bits: sum_j max(lambda, KL_j) in place of the KL (Kingma et al., "Improved variational inference with inverse autoregressive flow",
2016, arXiv 1606.04934, equation 15, where KL_j is the mean of a minibatch). Here it is of each sample, so that nothing depends on how a
batch is cut. Neither is in the held-out loss, which is the bound at the full beta: it can be compared from step to step.

Kingma and Welling, "Auto-encoding variational Bayes", 2014 (arXiv 1312.6114, equation 10 and appendix B), with one eps per sample;
beta: Higgins et al., "beta-VAE", 2017. Sums over elements and latents, means over samples: with beta 1 this is a bound in nats.

autoencoder-kl: l1 or mse with beta 1e-6 (Rombach et al., 2022, arXiv 2112.10752, section 3.1 and appendix G, without its perceptual and
adversarial terms). A diffusion model learns its latents divided by their standard deviation, so that is measured at each evaluation
(evaluate/latent_scale.py), and is state of the objective: 1/sigma is the `scaling_factor` that an export says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.job import Spec
from trainjobs.api.vae import KL, KL_BETA, Annealing, Vae, VaeLoss
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
    usual: float = 1.0  # the weight of the KL term where the loss says none

    @property
    def beta(self) -> float:
        return self.usual if self.loss.beta is None else self.loss.beta

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="autoencoder", loss=self.bound),)

    @property
    def highest_stage(self) -> int:
        return 3

    def bound(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What is trained on: with the weight that the KL term has at this step, and its free bits."""
        rebuilt, kl_BZ = self._terms(batch, batch.noise)
        total = kl_BZ.sum(dim=1).mean()
        counted = kl_BZ.clamp(min=self.loss.free_bits).sum(dim=1).mean() if self.loss.free_bits else total
        weight = self.beta * rising(self.loss.annealing, batch.at.step)
        loss = rebuilt + weight * counted
        metrics = {"loss": loss.detach(), "reconstruction": rebuilt.detach(), "kl": total.detach()}
        if self.loss.annealing is not None:
            metrics["kl_weight"] = torch.full_like(metrics["kl"], weight)
        return loss, metrics

    def _terms(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """The reconstruction, a mean over samples, and KL of each sample and latent dimension, float [B, Z]."""
        x = batch.data[self.kind].float()
        output, mean, logvar = self.autoencoder(noise.normal("z", self.latent_dim), x)
        return reconstruction(x, output, self.loss.reconstruction).mean(), kl_by_dimension(mean, logvar)

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The bound at the full beta, each sample's noise the same at every evaluation, so that two evaluations differ by the weights
        alone."""
        rebuilt, kl_BZ = self._terms(batch, Noise.of(0, 0, "heldout", batch.noise.samples))
        return {"loss": over(rebuilt + self.beta * kl_BZ.sum(dim=1).mean(), batch.size)}

    def latents(self, batch: Batch) -> Tensor:
        """The means of q(z|x), float [B, Z]."""
        x = batch.data[self.kind].float()
        mean: Tensor = self.autoencoder(x.new_zeros(len(x), self.latent_dim), x)[1]
        return mean

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


@dataclass(frozen=True)
class LatentObjective(VaeObjective):
    """That of an autoencoder whose latents are for others. `measured` is what is saved of it: {"scaling_factor": 1/sigma}, once known."""

    measured: dict[str, float] = field(default_factory=dict)

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of q(z|x), float [B, Z] each. Called as `latents`."""
        x = batch.data[self.kind].float()
        _, mean, logvar = self.autoencoder(x.new_zeros(len(x), self.latent_dim), x)
        return mean, logvar

    def state(self) -> dict[str, Any]:
        return dict(self.measured)

    def load_state(self, state: dict[str, Any]) -> None:
        self.measured.clear()
        self.measured.update(state)


def reconstruction(x: Tensor, output: Tensor, likelihood: Literal["mse", "l1", "bce"]) -> Tensor:
    """-log p(x|z) of each sample, float [B]."""
    if likelihood == "l1":
        return (x - output).abs().flatten(1).sum(dim=1)
    if likelihood == "mse":
        return 0.5 * (x - output).square().flatten(1).sum(dim=1)
    return F.binary_cross_entropy_with_logits(output, 0.5 * (x + 1.0), reduction="none").flatten(1).sum(dim=1)


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, diag(exp(logvar))) || N(0, I)) of each sample, float [B]."""
    return kl_by_dimension(mean, logvar).sum(dim=1)


def kl_by_dimension(mean: Tensor, logvar: Tensor) -> Tensor:
    """Its terms, float [B, Z]."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)


def rising(annealing: Annealing | None, step: int) -> float:
    """The share of beta that counts at a step, from 0 to 1."""
    if annealing is None or step >= annealing.steps:
        return 1.0
    if annealing.type == "linear":
        return step / annealing.steps
    return min(1.0, 2.0 * (step * annealing.cycles % annealing.steps) / annealing.steps)


def networks(family: Vae, info: DataInfo) -> dict[str, nn.Module]:
    network = family.network
    encoder: nn.Module
    decoder: nn.Module
    if network.architecture == KL:
        from trainjobs.models import autoencoder_kl

        channels, size = image("vae.network.architecture", network.architecture, info)
        return {"autoencoder": autoencoder_kl.Autoencoder(network, channels=channels, size=size)}
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
    autoencoder, loss = made["autoencoder"], spec.vae.loss
    if spec.vae.network.architecture == KL:
        channels, factor = spec.vae.network.latent_channels, spec.vae.network.factor
        latent = channels * math.prod(side // factor for side in info.shape[1:])
        return model(made, LatentObjective(autoencoder, loss, latent, info.kind, KL_BETA))
    return model(made, VaeObjective(autoencoder, loss, spec.vae.network.latent_dim, info.kind))
