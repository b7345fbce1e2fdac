"""The evidence lower bound against torch.distributions in float64, and a bound that can be computed in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Laplace, Normal, kl_divergence

from trainjobs.api.vae import VaeLoss
from trainjobs.models import vae
from trainjobs.noise import Noise
from trainjobs.objectives.phase import Batch
from trainjobs.objectives.vae import VaeObjective, kl, reconstruction


def network(latent: int = 4) -> vae.Autoencoder:
    torch.manual_seed(0)
    encoder = vae.Encoder(latent_dim=latent, channels=4, size=8, image_channels=1)
    return vae.Autoencoder(encoder, vae.Decoder(latent_dim=latent, channels=4, size=8, image_channels=1))


def batch(count: int = 5, start: int = 0, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(100, 1, 8, 8, generator=generator) * 2 - 1
    return Batch({"image": images[start : start + count]}, Noise.of(0, step, "train", torch.arange(start, start + count)), count)


def test_kl_is_that_of_torch_distributions() -> None:
    torch.manual_seed(0)
    mean, logvar = torch.randn(50, 7, dtype=torch.float64) * 2, torch.randn(50, 7, dtype=torch.float64) * 3
    expected = kl_divergence(Independent(Normal(mean, (logvar / 2).exp()), 1), Independent(Normal(0.0 * mean, 1.0 + 0.0 * mean), 1))
    torch.testing.assert_close(kl(mean, logvar), expected, rtol=1e-12, atol=1e-12)


def test_reconstructions_are_log_likelihoods_of_torch_distributions() -> None:
    torch.manual_seed(0)
    x, output = torch.rand(5, 1, 8, 8, dtype=torch.float64) * 2 - 1, torch.randn(5, 1, 8, 8, dtype=torch.float64)
    gaussian = -Independent(Normal(output, torch.ones_like(output)), 3).log_prob(x) - 32 * math.log(2 * math.pi)
    torch.testing.assert_close(reconstruction(x, output, "mse"), gaussian, rtol=1e-12, atol=1e-12)
    laplace = -Independent(Laplace(output, torch.ones_like(output)), 3).log_prob(x) - 64 * math.log(2)
    torch.testing.assert_close(reconstruction(x, output, "l1"), laplace, rtol=1e-12, atol=1e-12)
    bits = (x > 0).double() * 2 - 1  # Bernoulli is defined for 0 and 1
    bernoulli = -Independent(Bernoulli(logits=output), 3).log_prob((bits + 1) / 2)
    torch.testing.assert_close(reconstruction(bits, output, "bce"), bernoulli, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("likelihood", ["mse", "bce"])
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_loss_is_reconstruction_plus_beta_kl(likelihood: str, beta: float) -> None:
    autoencoder, b = network(), batch()
    objective = VaeObjective(autoencoder, VaeLoss.model_validate({"reconstruction": likelihood, "beta": beta}), 4, "image")
    loss, metrics = objective.phases[0].loss(b)
    x = b.data["image"].double()
    mean, logvar = autoencoder.encoder(b.data["image"]).double().chunk(2, dim=1)
    z = mean + (logvar / 2).exp() * b.noise.normal("z", 4)
    output = autoencoder.decoder(z.float()).double()
    if likelihood == "mse":
        rebuilt = sum(((x[i] - output[i]) ** 2).sum() / 2 for i in range(5)) / 5
    else:
        p, q = (x + 1) / 2, output.sigmoid()
        rebuilt = -(p * q.log() + (1 - p) * (1 - q).log()).sum() / 5
    divergence = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum() / 5
    assert loss.item() == pytest.approx((rebuilt + beta * divergence).item(), rel=1e-5)
    assert metrics["loss"].item() == loss.item()
    assert metrics["reconstruction"].item() == pytest.approx(rebuilt.item(), rel=1e-5)
    assert metrics["kl"].item() == pytest.approx(divergence.item(), rel=1e-4)


def test_it_bounds_the_likelihood_and_is_tight_at_the_true_posterior() -> None:
    """Linear and Gaussian: z ~ N(0, 1), x | z ~ N(w z, I). Then p(x) and q(z|x) = p(z|x) are Gaussians, and the bound is -log p(x)."""
    w = torch.tensor([2.0, -1.0])
    posterior_variance = 1.0 / (1.0 + float(w @ w))

    class Exact(nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.shift = shift

        def forward(self, noise: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean = posterior_variance * (x @ w)[:, None] + self.shift
            logvar = torch.full_like(mean, math.log(posterior_variance))
            return (mean + (logvar / 2).exp() * noise) * w, mean, logvar

    x = torch.tensor([[0.7, 1.3]]).expand(200_000, 2)
    b = Batch({"point": x}, Noise.of(0, 0, "train", torch.arange(200_000)), 200_000)
    covariance = torch.eye(2) + torch.outer(w, w)
    truth = -torch.distributions.MultivariateNormal(torch.zeros(2), covariance).log_prob(x[0]).item() - math.log(2 * math.pi)
    bound = VaeObjective(Exact(0.0), VaeLoss(), 1, "point").bound(b)[0].item()
    assert bound == pytest.approx(truth, abs=0.01)
    loose = VaeObjective(Exact(0.5), VaeLoss(), 1, "point").bound(b)[0].item()
    gap = 0.5**2 / (2 * posterior_variance)  # KL of two Gaussians of one variance
    assert loose - bound == pytest.approx(gap, abs=0.02)


def test_mean_of_micro_batches_is_the_batch_and_noise_follows_the_sample() -> None:
    objective = VaeObjective(network(), VaeLoss(), 4, "image")
    whole = objective.bound(batch(6))[0].item()
    assert sum(objective.bound(batch(2, start))[0].item() for start in (0, 2, 4)) / 3 == pytest.approx(whole, rel=1e-5)


def test_heldout_loss_is_the_same_at_every_evaluation() -> None:
    objective = VaeObjective(network(), VaeLoss(), 4, "image")
    with torch.no_grad():
        first, second = (objective.heldout(batch(step=step))["loss"][0].item() for step in (1, 2))
        trained = [objective.bound(batch(step=step))[0].item() for step in (1, 2)]
    assert first == second
    assert trained[0] != trained[1]


@pytest.mark.parametrize("likelihood", ["mse", "bce"])
def test_samples_are_images(likelihood: str) -> None:
    objective = VaeObjective(network(), VaeLoss.model_validate({"reconstruction": likelihood}), 4, "image")
    with torch.no_grad():
        images = objective.sample(Batch({}, Noise.of(0, 0, "samples", torch.arange(9)), 9)).images
    assert images is not None
    assert images.shape == (9, 1, 8, 8)
    assert images.abs().max() <= 1.0
    if likelihood == "bce":  # a probability p is the pixel 2 p - 1, the inverse of what the loss reads
        logits = objective.autoencoder(Noise.of(0, 0, "samples", torch.arange(9)).normal("z", 4))[0]
        torch.testing.assert_close((images + 1) / 2, Bernoulli(logits=logits).probs)


def test_reconstructions_are_of_the_mean_and_the_same_whatever_the_noise() -> None:
    objective = VaeObjective(network(), VaeLoss(), 4, "image")
    first, second = batch(6), batch(6, step=9)
    with torch.no_grad():
        images, again = (objective.reconstruct(Batch(first.data, one.noise, 6)).images for one in (first, second))
        _, mean, _ = objective.autoencoder(torch.zeros(6, 4), first.data["image"])
        decoded = objective.autoencoder(mean)[0].clamp(-1, 1)
    assert images is not None
    assert again is not None
    assert torch.equal(images, again)
    torch.testing.assert_close(images, decoded)


def test_bf16_agrees_with_fp32_within_its_precision() -> None:
    objective = VaeObjective(network(), VaeLoss(), 4, "image")
    exact = objective.bound(batch())[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective.bound(batch())[0]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)
