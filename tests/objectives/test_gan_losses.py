"""GAN losses against transcriptions of the papers, written another way: probabilities and logarithms, loops over single samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.gan import Gan, GanLoss
from trainjobs.api.shape import literals
from trainjobs.models import dcgan, mlp
from trainjobs.noise import Noise
from trainjobs.objectives.deferred import Deferred
from trainjobs.objectives.gan.gradient_penalty import gradient_penalty
from trainjobs.objectives.gan.losses import LOSSES
from trainjobs.objectives.gan.objective import GanObjective
from trainjobs.objectives.phase import Batch

B, Z = 6, 3
KINDS = sorted(LOSSES)


def of(loss: dict[str, Any]) -> Gan:
    return Gan.model_validate({"loss": loss, "generator": {"latentDim": Z}})


def objective(**loss: Any) -> GanObjective:
    torch.manual_seed(0)
    generator = mlp.Generator(latent_dim=Z, channels=16, depth=2, dimension=2, batch_norm=False)
    discriminator = mlp.Discriminator(channels=16, depth=2, dimension=2, batch_norm=False, spectral=False)
    return GanObjective(generator, discriminator, of(loss), "point")


def batch(data: dict[str, Tensor] | None = None) -> Batch:
    torch.manual_seed(1)
    return Batch({"point": 2.0 * torch.randn(B, 2)} if data is None else data, Noise.of(7, 3, "D", torch.arange(100, 100 + B)), B)


def scores(gan: GanObjective, b: Batch) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """D of each real and each generated sample, one at a time, in float64, and the samples."""
    real, fake = b.data["point"].double(), gan.generator(b.noise.normal("z", Z)).double()
    d = gan.discriminator.double()
    return [d(x[None])[0] for x in real], [d(x[None])[0] for x in fake], real, fake


def test_every_loss_of_the_api_is_there() -> None:
    assert sorted(literals(GanLoss.model_fields["type"].annotation)) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_the_papers(kind: str) -> None:
    gan, b = objective(type=kind, gradientPenalty=10.0), batch()
    loss_d, metrics_d = gan.discriminator_loss(b)
    loss_g, metrics_g = gan.generator_loss(b)
    on_real, on_fake, real, fake = scores(gan, b)
    if kind == "bce":  # Goodfellow et al.: D maximises log p(real) + log(1 - p(fake)), G maximises log p(fake)
        expected_d = -sum(s.sigmoid().log() for s in on_real) / B - sum((1 - s.sigmoid()).log() for s in on_fake) / B
        expected_g = -sum(s.sigmoid().log() for s in on_fake) / B
    elif kind == "minimax":  # equation 1: G minimises what D maximises
        expected_d = -sum(s.sigmoid().log() for s in on_real) / B - sum((1 - s.sigmoid()).log() for s in on_fake) / B
        expected_g = sum((1 - s.sigmoid()).log() for s in on_fake) / B
    elif kind == "wgan":  # Arjovsky et al., algorithm 1, lines 5 and 10
        expected_d = sum(on_fake) / B - sum(on_real) / B
        expected_g = -sum(on_fake) / B
    elif kind == "hinge":  # Miyato et al., equations 16 and 17
        zero = torch.zeros(())
        expected_d = -sum(torch.minimum(zero, s - 1) for s in on_real) / B - sum(torch.minimum(zero, -s - 1) for s in on_fake) / B
        expected_g = -sum(on_fake) / B
    elif kind == "lsgan":  # Mao et al.: squared distances to the labels 1 of real and 0 of generated samples, G's to 1
        mse, real_B, fake_B = nn.MSELoss(), torch.stack(on_real), torch.stack(on_fake)
        expected_d = 0.5 * mse(real_B, torch.ones_like(real_B)) + 0.5 * mse(fake_B, torch.zeros_like(fake_B))
        expected_g = 0.5 * mse(fake_B, torch.ones_like(fake_B))
    else:  # Gulrajani et al., algorithm 1, lines 4 to 8, sample by sample
        assert kind == "wgan-gp"
        epsilon = b.noise.uniform("interpolation", 1).double()
        expected_d = torch.zeros((), dtype=torch.float64)
        for i in range(B):
            mixed = (epsilon[i] * real[i] + (1 - epsilon[i]) * fake[i]).detach().requires_grad_()
            (slope,) = torch.autograd.grad(gan.discriminator(mixed[None])[0], mixed)
            expected_d = expected_d + (on_fake[i] - on_real[i] + 10.0 * ((slope**2).sum().sqrt() - 1) ** 2) / B
        expected_g = -sum(on_fake) / B
    assert loss_d.item() == pytest.approx(float(expected_d.detach()), rel=1e-5)
    assert loss_g.item() == pytest.approx(float(expected_g.detach()), rel=1e-5)
    assert float(metrics_d["loss/D"]) == loss_d.item()
    assert float(metrics_g["loss/G"]) == loss_g.item()
    assert float(metrics_d["score/real"]) == pytest.approx(float(sum(on_real).detach()) / B, rel=1e-4)
    assert float(metrics_d["score/fake"]) == pytest.approx(float(sum(on_fake).detach()) / B, rel=1e-4)
    more = {"gradient_penalty"} if kind == "wgan-gp" else set() if kind == "wgan" else {"accuracy/D"}
    assert set(metrics_d) == {"loss/D", "score/real", "score/fake"} | more
    if "accuracy/D" in more:  # nearer to what is real than to what is generated
        limit = 0.5 if kind == "lsgan" else 0.0
        right = [s > limit for s in on_real] + [s < limit for s in on_fake]
        assert float(metrics_d["accuracy/D"]) == pytest.approx(sum(map(bool, right)) / (2 * B))
    told = (*metrics_d.values(), *metrics_g.values())
    made_of = [each for value in told for each in (value.of if isinstance(value, Deferred) else [value])]
    assert not any(each.requires_grad for each in made_of)


@pytest.mark.parametrize("kind", ["bce", "minimax", "lsgan"])
def test_a_label_of_real_samples_is_one_sided(kind: str) -> None:
    """Salimans et al.: real samples are called real with probability 0.9, generated ones never; G's loss is as it was."""
    gan, b = objective(type=kind, realLabel=0.9), batch()
    loss, plain = gan.discriminator_loss(b)[0].item(), objective(type=kind).discriminator_loss(b)[0].item()
    on_g, plain_g = gan.generator_loss(b)[0].item(), objective(type=kind).generator_loss(b)[0].item()
    on_real, on_fake, _, _ = scores(gan, b)
    if kind == "lsgan":
        expected = sum((s - 0.9) ** 2 for s in on_real) / (2 * B) + sum(s**2 for s in on_fake) / (2 * B)
    else:
        label, entropy = torch.full((B,), 0.9, dtype=torch.float64), nn.BCEWithLogitsLoss()
        expected = entropy(torch.stack(on_real), label) + entropy(torch.stack(on_fake), torch.zeros(B, dtype=torch.float64))
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    assert loss != pytest.approx(plain, rel=1e-5)
    assert on_g == plain_g


def test_drift_is_the_mean_square_of_the_scores_of_real_samples() -> None:
    b = batch()
    drifting = objective(type="wgan-gp", drift=0.5)
    added = drifting.discriminator_loss(b)[0].item() - objective(type="wgan-gp").discriminator_loss(b)[0].item()
    on_real, _, _, _ = scores(drifting, b)
    assert added == pytest.approx(0.5 * float(sum(s.detach() ** 2 for s in on_real)) / B, rel=1e-4)


def test_the_minimax_generator_learns_nothing_from_a_sure_discriminator() -> None:
    """The gradient of log(1 - p) with respect to a score s is -p: e^-20 at s = -20, where the non-saturating loss has one of nearly 1."""
    slopes = {}
    for kind in ("minimax", "bce"):
        score = torch.full((B,), -20.0, requires_grad=True)
        LOSSES[kind].generator(score).backward()
        assert score.grad is not None
        slopes[kind] = B * score.grad[0].item()
    assert slopes["minimax"] == pytest.approx(-2.06e-9, rel=1e-2)
    assert slopes["bce"] == pytest.approx(-1.0, rel=1e-6)


def test_the_penalty_of_a_linear_critic_is_known() -> None:
    """D(y) = w . y has the gradient w everywhere: the penalty is (|w| - 1)^2 and its gradient 2 (|w| - 1) w / |w|."""
    critic = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
    penalty = gradient_penalty(critic, torch.randn(B, 2), torch.randn(B, 2), Noise.of(0, 0, "D", torch.arange(B)))
    penalty.backward()
    assert penalty.item() == pytest.approx(16.0)
    torch.testing.assert_close(critic[0].weight.grad, torch.tensor([[8.0 * 0.6, 8.0 * 0.8]]))


def test_the_gradient_of_the_penalty_is_that_of_differences() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    real, fake, noise = torch.randn(B, 2), torch.randn(B, 2), Noise.of(0, 0, "D", torch.arange(B))
    weight = critic[0].weight
    gradient_penalty(critic, real, fake, noise).backward()
    with torch.no_grad():
        step = 1e-2
        original = weight[0, 0].item()
        values = []
        for sign in (1, -1):
            weight[0, 0] = original + sign * step
            with torch.enable_grad():
                values.append(gradient_penalty(critic, real, fake, noise).item())
    assert weight.grad is not None
    assert weight.grad[0, 0].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2, abs=1e-5)


def test_interpolation_lies_between_real_and_generated_samples_each_at_its_own_place() -> None:
    seen: list[Tensor] = []

    class Critic(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            seen.append(y.detach())
            return y.flatten(1).sum(1)

    gradient_penalty(Critic(), torch.ones(64, 1, 4, 4), torch.zeros(64, 1, 4, 4), Noise.of(0, 0, "D", torch.arange(64)))
    u = seen[0].flatten(1)
    assert (u.std(dim=1) == 0).all()  # one number per sample, the same for all its pixels
    assert u[:, 0].unique().numel() == 64
    assert 0.0 <= u.min() < 0.2
    assert 0.8 < u.max() < 1.0


def test_each_phase_trains_its_own_network() -> None:
    gan = objective(type="wgan-gp", criticSteps=5)
    d, g = gan.phases
    assert (d.name, d.trains, d.repeat, d.draws) == ("D", "discriminator", 5, "data")
    assert (g.name, g.trains, g.repeat, g.draws) == ("G", "generator", 1, "nothing")
    d.loss(batch())[0].backward()
    assert all(p.grad is None for p in gan.generator.parameters())
    assert all(p.grad is not None for p in list(gan.discriminator.parameters())[:-1])  # a penalty does not see the last bias
    gan.discriminator.zero_grad(set_to_none=True)
    gan.discriminator.requires_grad_(False)  # as the loop does
    g.loss(batch({}))[0].backward()
    assert all(p.grad is None for p in gan.discriminator.parameters())
    assert all(p.grad is not None for p in gan.generator.parameters())


def test_mean_of_micro_batches_is_the_batch() -> None:
    """Without batch norm a loss is a mean over samples, and each sample's noise is its own."""
    gan, b = objective(type="wgan-gp"), batch()
    whole = gan.discriminator_loss(b)[0].item()
    parts = [
        gan.discriminator_loss(Batch({"point": b.data["point"][i : i + 2]}, Noise(b.noise.seed, b.noise.samples[i : i + 2]), 2))[0].item()
        for i in (0, 2, 4)
    ]
    assert sum(parts) / 3 == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_bf16_agrees_with_fp32_within_its_precision(kind: str, weights: torch.dtype) -> None:
    """Under autocast, and with the weights themselves in bf16 as DeepSpeed has them: losses float32, the penalty not rounded."""
    torch.manual_seed(0)
    g = dcgan.Generator(latent_dim=Z, channels=8, size=16, image_channels=1, batch_norm=True)
    d = dcgan.Discriminator(channels=8, size=16, image_channels=1, batch_norm=False, spectral=kind == "hinge")
    for parameter in [*g.parameters(), *d.parameters()]:
        nn.init.normal_(parameter, 0.0, 0.1)
    gan = GanObjective(g, d, of({"type": kind}), "image")
    b = Batch({"image": torch.rand(B, 1, 16, 16) * 2 - 1}, Noise.of(0, 0, "D", torch.arange(B)), B)
    for network in (g, d):  # the same rounded weights in both runs, so that only the arithmetic differs
        network.to(torch.bfloat16).float()
    exact_d, exact_metrics = gan.discriminator_loss(b)
    exact_g = gan.generator_loss(b)[0]
    for parameter in [*g.parameters(), *d.parameters()]:  # and not the buffers
        parameter.data = parameter.data.to(weights)
    with torch.autocast("cpu", torch.bfloat16):
        loss_d, metrics = gan.discriminator_loss(b)
        loss_g, _ = gan.generator_loss(b)
    loss_d.backward()
    assert loss_d.dtype == loss_g.dtype == torch.float32
    assert loss_d.item() == pytest.approx(exact_d.item(), rel=0.03, abs=0.03)
    assert loss_g.item() == pytest.approx(exact_g.item(), rel=0.03, abs=0.03)
    if kind == "wgan-gp":
        # The penalty itself is float32 arithmetic: what is left is that generated samples were made in bf16.
        assert float(metrics["gradient_penalty"]) == pytest.approx(float(exact_metrics["gradient_penalty"]), rel=2e-3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in d.parameters() if p.dim() > 1)


def test_samples_are_a_function_of_the_noise_and_heldout_is_nothing() -> None:
    gan = objective()
    noise = Noise.of(1, 0, "samples", torch.arange(10))
    with torch.no_grad():
        first, again = gan.sample(Batch({}, noise, 10)).points, gan.sample(Batch({}, noise, 10)).points
        other = gan.sample(Batch({}, Noise.of(2, 0, "samples", torch.arange(10)), 10)).points
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.shape == (10, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert gan.heldout(batch()) == {}
