"""Path length: against finite differences, and what ranks and micro-batches must not change."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from trainjobs.api.gan import Gan, PathLength, corrected
from trainjobs.api.job import Job
from trainjobs.api.training import Optimizer
from trainjobs.data.source import DataInfo
from trainjobs.models import stylegan2
from trainjobs.models.stylegan2 import Generator
from trainjobs.noise import Noise
from trainjobs.objectives.gan.build import build
from trainjobs.objectives.gan.path_length import PathMean, fewer, path_lengths
from trainjobs.objectives.phase import Adaptive, Batch

LATENT, MIXING = 3, 0.5


def generator() -> Generator:
    torch.manual_seed(0)
    made = Generator(latent_dim=LATENT, channels=2, size=8, image_channels=1, mapping_layers=2)
    with torch.no_grad():
        for styled in (made.first, *made.raised, *made.refined):
            styled.strength.fill_(0.3)
    return made


def noise(*samples: int) -> Noise:
    return Noise.of(5, 2, "G_path.0", torch.tensor(samples))


@pytest.mark.slow
def test_lengths_and_their_gradient_are_those_of_finite_differences_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stylegan2, "leaky", nn.functional.silu)  # one without a kink, across which a difference says nothing
    g = generator().double()
    own = noise(1, 2)
    z = own.normal("z", LATENT).double()
    y = own.normal("path", 1, 8, 8).double() / 8.0

    def by_hand() -> torch.Tensor:
        """Each element of each layer's style moved by a little: one copy of the samples for each."""
        with torch.no_grad():
            w, step = g.styles(z, own, MIXING), 1e-5
            moves = step * torch.eye(w[0].numel(), dtype=w.dtype).view(-1, 1, *w.shape[1:])
            copies = Noise(own.seed, own.samples.repeat(len(moves)))
            up, down = ((g.draw((w + sign * moves).flatten(0, 1), copies).view(-1, *y.shape) * y).flatten(2).sum(2) for sign in (1.0, -1.0))
            slopes = ((up - down) / (2 * step)).view(*w.shape[1:], len(w))
            return slopes.square().sum(dim=1).mean(dim=0).sqrt()

    lengths = path_lengths(g, z, own, MIXING)
    torch.testing.assert_close(lengths.detach(), by_hand(), rtol=1e-7, atol=1e-9)
    loss = (lengths - 0.1).square().mean()
    loss.backward()
    seen = 0
    for name, parameter in g.named_parameters():
        assert parameter.grad is not None, name
        flat, slope = parameter.detach().view(-1), parameter.grad.view(-1)
        for place in range(0, flat.numel(), max(1, flat.numel() - 1)):
            moved = []
            for sign in (1.0, -1.0):
                flat[place] += sign * 1e-4
                moved.append(float((by_hand() - 0.1).square().mean()))
                flat[place] -= sign * 1e-4
            assert slope[place].item() == pytest.approx((moved[0] - moved[1]) / 2e-4, rel=1e-4, abs=1e-7), f"{name}[{place}]"
            seen += 1
    assert seen > 40


def test_the_mean_moves_by_its_decay_and_is_kept() -> None:
    mean = PathMean(PathLength(decay=0.25))
    mean.adapt({"path_length": 4.0, "loss/G": 9.0})
    assert mean.mean == 1.0
    mean.adapt({"loss/G": 9.0})  # a window without one of its steps
    again = PathMean(PathLength(decay=0.25))
    again.load_state(mean.state())
    again.adapt({"path_length": 4.0})
    assert again.mean == 1.75
    assert mean.penalty(torch.tensor([1.0, 3.0])).item() == pytest.approx(2.0 * (0 + 4) / 2)


def objective(**path: Any) -> Any:
    networks = {"generator": {"architecture": "stylegan2", "latentDim": LATENT, "channels": 2, "mappingLayers": 2}}
    networks["discriminator"] = {"architecture": "stylegan2", "channels": 2}
    gan = {**networks, "regularization": {"pathLength": path}}
    spec = {"gan": gan, "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}, "training": {"steps": 1}}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    torch.manual_seed(0)
    return build(Job.model_validate(job).spec, DataInfo("image", (1, 8, 8), 10, 0)).objective


def test_the_loss_is_that_of_the_same_samples_however_the_batch_is_cut() -> None:
    whole = objective(every=2)
    assert isinstance(whole, Adaptive)
    assert [phase.name for phase in whole.phases] == ["D", "G", "G_path"]
    loss = whole.phases[-1].loss
    together, measured = loss(Batch({}, noise(*range(8)), 8))
    apart = [loss(Batch({}, noise(*rows), 2))[0] for rows in ((0, 1), (2, 3), (4, 5), (6, 7))]
    torch.testing.assert_close(together, torch.stack(apart).mean())
    assert together.item() == pytest.approx(2 * 2.0 * measured["path_length"].item() ** 2, rel=0.5)  # twice as heavy, every other step
    assert fewer(noise(*range(8)), 2).samples.tolist() == [0, 2, 4, 6]


def test_with_every_step_it_is_a_part_of_the_generator_s_loss() -> None:
    beside = objective(every=1, weight=3.0)
    assert [phase.name for phase in beside.phases] == ["D", "G"]
    loss, metrics = beside.generator_loss(Batch({}, noise(*range(4)), 4))
    plain = objective(every=2).generator_loss(Batch({}, noise(*range(4)), 4))[0]
    lengths = path_lengths(beside.generator, noise(0, 2).normal("z", LATENT), noise(0, 2), 0.9)
    assert loss.item() == pytest.approx(plain.item() + 3.0 * lengths.square().mean().item(), rel=1e-5)
    assert metrics["path_length"].item() == pytest.approx(lengths.mean().item(), rel=1e-5)


def test_the_generator_s_adam_is_corrected() -> None:
    gan = Gan.model_validate({"generator": {"architecture": "stylegan2"}, "regularization": {"pathLength": {}, "r1": {"every": 16}}})
    assert gan.lazy == {"generator": 4, "discriminator": 16}
    used = corrected(Optimizer(name="adam", learning_rate=0.0025, betas=[0.0, 0.99]), 4)
    assert used.learning_rate == pytest.approx(0.002)
    assert used.betas == [0.0, pytest.approx(math.exp(0.8 * math.log(0.99)))]
