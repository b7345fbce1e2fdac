"""Annealing of the KL term and free bits, against torch.distributions and the papers' formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from trainjobs.api.vae import Annealing, VaeLoss
from trainjobs.models import vae
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Batch
from trainjobs.objectives.vae import VaeObjective, rising


def objective(**loss: Any) -> VaeObjective:
    torch.manual_seed(0)
    encoder = vae.Encoder(latent_dim=4, channels=4, size=8, image_channels=1)
    network = vae.Autoencoder(encoder, vae.Decoder(latent_dim=4, channels=4, size=8, image_channels=1))
    return VaeObjective(network, VaeLoss.model_validate(loss), 4, "image")


def batch(count: int = 6, start: int = 0, step: int = 0) -> Batch:
    images = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    noise = Noise.of(0, 0, "train", torch.arange(start, start + count))
    return Batch({"image": images[start : start + count]}, noise, count, At(step))


def parts(ours: VaeObjective, b: Batch) -> tuple[Tensor, Tensor]:
    """Reconstruction of each sample, and KL of each sample and dimension, by torch.distributions."""
    output, mean, logvar = ours.autoencoder(b.noise.normal("z", 4), b.data["image"])
    gaussian = -Normal(output, 1.0).log_prob(b.data["image"]).flatten(1).sum(1) - 32 * math.log(2 * math.pi)
    return gaussian, kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0))


def test_linear_annealing_rises_once() -> None:
    linear = Annealing(type="linear", steps=10)
    assert [rising(linear, step) for step in (0, 1, 5, 9, 10, 11, 1000)] == [0.0, 0.1, 0.5, 0.9, 1.0, 1.0, 1.0]
    assert rising(None, 0) == 1.0


@pytest.mark.parametrize(("steps", "cycles"), [(40, 4), (100, 7), (12, 3)])
def test_cyclical_annealing_is_the_paper_s(steps: int, cycles: int) -> None:
    """Fu et al., equations 6 and 7, R = 1/2, t from 1, with whole cycles where theirs are rounded up."""
    given = Annealing(type="cyclical", steps=steps, cycles=cycles)
    for t in range(1, steps + 1):
        period = steps / cycles
        tau = ((t - 1) - period * math.floor((t - 1) / period + 1e-9)) / period
        assert rising(given, t - 1) == pytest.approx(min(1.0, tau / 0.5), abs=1e-6)
    assert rising(given, steps) == 1.0
    assert sum(rising(given, step) == 0.0 for step in range(steps)) >= 1


@pytest.mark.parametrize("kind", ["linear", "cyclical"])
def test_the_loss_counts_the_kl_as_the_step_says(kind: str) -> None:
    ours = objective(beta=2.0, annealing={"type": kind, "steps": 40})
    for step in (0, 3, 7, 20, 100):
        b = batch(step=step)
        loss, metrics = ours.bound(b)
        rebuilt, kl = parts(ours, b)
        weight = 2.0 * (min(1.0, step / 40) if kind == "linear" else min(1.0, 2 * ((step % 10) / 10)) if step < 40 else 1.0)
        assert metrics["kl_weight"].item() == pytest.approx(weight)
        assert metrics["kl"].item() == pytest.approx(kl.sum(1).mean().item(), rel=1e-4)  # all of it, whatever it weighs
        assert loss.item() == pytest.approx((rebuilt + weight * kl.sum(1)).mean().item(), rel=1e-5)
    assert "kl_weight" not in objective().bound(batch())[1]


@pytest.mark.parametrize("free", [0.001, 0.05, 1.0])
def test_free_bits_are_of_each_sample_and_dimension(free: float) -> None:
    ours, b = objective(beta=3.0, freeBits=free), batch()
    loss, metrics = ours.bound(b)
    rebuilt, kl = parts(ours, b)
    expected = rebuilt.mean() + 3.0 * torch.maximum(kl, torch.tensor(free)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert metrics["kl"].item() == pytest.approx(kl.sum(1).mean().item(), rel=1e-4)
    if free == 1.0:  # nothing here costs that much, so nothing pulls at the posterior
        gradients = torch.autograd.grad(loss - parts(ours, b)[0].mean(), list(ours.autoencoder.parameters()))
        assert max(gradient.abs().max().item() for gradient in gradients) < 1e-4


def test_free_bits_do_not_depend_on_the_cut() -> None:
    """As they would by the paper's mean over a minibatch inside the maximum."""
    ours = objective(freeBits=0.02)
    whole = ours.bound(batch(6))[0].item()
    assert sum(ours.bound(batch(2, start))[0].item() for start in (0, 2, 4)) / 3 == pytest.approx(whole, rel=1e-6)


def test_the_heldout_loss_is_the_bound_at_the_full_beta() -> None:
    plain = objective(beta=2.0)
    with torch.no_grad():
        expected = plain.heldout(batch())["loss"][0].item()
        for loss in ({"annealing": {"steps": 100}}, {"annealing": {"type": "cyclical", "steps": 100}}, {"freeBits": 1.0}):
            ours = replace(plain, loss=VaeLoss.model_validate({"beta": 2.0, **loss}))
            for step in (0, 30, 200):
                assert ours.heldout(batch(step=step))["loss"][0].item() == expected
