"""The learned noise schedule: monotone, its ends fixed; the bound does not know what lies between them, the loss's variance does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.models.noise_schedule import FIRST, LAST, NoiseSchedule
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.bound import prior_bits
from trainjobs.objectives.diffusion.learned import LearnedObjective, value_bits
from trainjobs.objectives.phase import Batch

SHAPE = (1, 4, 4)
WIDTH = 0.25


class Best(nn.Module):
    """The best prediction of the noise for pixels x ~ N(0, WIDTH^2): E[eps | x_t], whatever the schedule."""

    def forward(self, x_t: Tensor, time: Tensor) -> Tensor:
        gamma = (FIRST + (LAST - FIRST) * time / 1000).view(-1, 1, 1, 1)
        return x_t * gamma.sigmoid().sqrt() / (gamma.neg().sigmoid() * WIDTH**2 + gamma.sigmoid())


class Straight(nn.Module):
    """gamma linear in t."""

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return FIRST + (LAST - FIRST) * t, torch.full_like(t, LAST - FIRST)


class Bent(nn.Module):
    """gamma = first + (last - first) t^2."""

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return FIRST + (LAST - FIRST) * t.square(), 2 * (LAST - FIRST) * t


class Even(nn.Module):
    """Slow while there is something to be known of the noise, then quick: nearly the same loss at every time."""

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        slow, quick = (-2.0 - FIRST) / 0.9, (LAST + 2.0) / 0.1
        return torch.where(t < 0.9, FIRST + slow * t, -2.0 + quick * (t - 0.9)), torch.where(t < 0.9, slow, quick)


def schedule(seed: int = 0, units: int = 32) -> NoiseSchedule:
    torch.manual_seed(seed)
    made = NoiseSchedule(units)
    with torch.no_grad():  # any shape, not the nearly straight one that it starts with
        made.heights.copy_(4 * torch.randn(units))
        made.offsets.copy_(3 * torch.randn(units))
    return made


def objective(denoiser: nn.Module, gamma: nn.Module, batch: int = 64, steps: int = 10, eta: float = 0.0) -> LearnedObjective:
    process = DiffusionProcess.model_validate({"schedule": "learned"})
    return LearnedObjective(denoiser, gamma, process, Sampler(steps=steps, eta=eta), SHAPE, batch)


def batch(count: int = 64, start: int = 0, step: int = 0) -> Batch:
    samples = torch.arange(start, start + count)
    x = Noise.of(1, 0, "data", samples).normal("x", *SHAPE) * WIDTH
    return Batch({"image": x}, Noise.of(0, step, "train.0", samples), count)


def test_the_loss_is_equation_17() -> None:
    """By autograd: half the derivative of gamma times the squared error of the noise, in bits."""
    gamma, b = schedule(), batch()

    class Network(nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return torch.tanh(x + 0.001 * time.view(-1, 1, 1, 1))

    loss, metrics = objective(Network(), gamma).bound(b)
    t = objective(Network(), gamma)._times(b.noise).requires_grad_()
    values = gamma(t)[0]
    slope = torch.autograd.grad(values.sum(), t)[0]
    g = values.detach().view(-1, 1, 1, 1)
    eps = b.noise.normal("epsilon", *SHAPE)
    x_t = (-g).sigmoid().sqrt() * b.data["image"] + g.sigmoid().sqrt() * eps
    error = (eps - Network()(x_t, 1000 * (values.detach() - FIRST) / (LAST - FIRST))).square().mean(dim=(1, 2, 3))
    each = 0.5 * slope * error / math.log(2)
    assert loss.item() == pytest.approx(each.mean().item(), rel=1e-3)
    assert metrics["loss"].item() == loss.item()
    squared, metrics = objective(Network(), gamma).variance(b)
    assert squared.item() == pytest.approx(each.square().mean().item(), rel=1e-3)
    assert metrics["loss/noise_schedule"].item() == squared.item()


def test_times_are_antithetic_over_the_global_batch_however_it_is_cut() -> None:
    ours = objective(Best(), Straight(), batch=8)
    times = ours._times(batch(8, start=16).noise)
    ordered = times.sort().values
    assert ordered.diff().tolist() == pytest.approx([1 / 8] * 7, abs=1e-6)
    cut = torch.cat([ours._times(batch(2, start).noise) for start in (16, 18, 20, 22)])
    assert torch.equal(cut, times)
    assert ours._times(batch(8, start=16, step=1).noise)[0] != times[0]
    whole = ours.bound(batch(8, 16))[0].item()
    assert sum(ours.bound(batch(2, start))[0].item() for start in (16, 18, 20, 22)) / 4 == pytest.approx(whole, rel=1e-5)


def test_two_interiors_with_the_same_ends_give_the_same_bound() -> None:
    """And so does a third; the losses of single samples differ, and by how much depends on the interior."""
    b = batch(4096)
    bounds, spreads = [], []
    for gamma in (Straight(), Even(), schedule(3)):
        ours = objective(Best(), gamma, batch=4096)
        with torch.no_grad():
            bounds.append(ours.bound(b)[0].item())
            spreads.append(ours.variance(b)[0].item() - bounds[-1] ** 2)
    assert bounds[1:] == pytest.approx([bounds[0]] * 2, rel=0.01)
    assert spreads[0] > 1.5 * spreads[1]


def test_the_bound_is_what_the_noise_hides_where_the_network_is_the_best_there_is() -> None:
    """Of Gaussian data in closed form: L is the information about x_0 that the first end has and the last has not."""
    b = batch(8192)
    with torch.no_grad():
        found = objective(Best(), Bent()).heldout(b)
    diffusion = 0.5 * math.log2((1 + WIDTH**2 * math.exp(-FIRST)) / (1 + WIDTH**2 * math.exp(-LAST)))
    loss, bits = ((total / count).item() for total, count in (found["loss"], found["bits"]))
    assert loss == pytest.approx(diffusion, rel=0.01)
    x = b.data["image"]
    ends = prior_bits(x, LAST) + value_bits(x, Noise.of(0, 0, "heldout", b.noise.samples).normal("first", *SHAPE))
    assert bits == pytest.approx(loss + ends.mean().item(), rel=1e-6)


@pytest.mark.slow  # 2 s on a busy machine
def test_the_second_phase_lowers_the_variance_and_leaves_the_bound() -> None:
    torch.manual_seed(0)
    gamma = NoiseSchedule(32)
    ours = objective(Best(), gamma, batch=256)
    train, learn = ours.phases
    assert (train.trains, learn.trains) == ("denoiser", "noise_schedule")

    def measured() -> tuple[float, float]:
        b = batch(2048, start=10**6)
        wide = objective(Best(), gamma, batch=2048)
        with torch.no_grad():
            mean = wide.bound(b)[0].item()
            return mean, wide.variance(b)[0].item() - mean**2

    before = measured()
    optimizer = torch.optim.Adam(gamma.parameters(), 0.05)
    for step in range(40):
        optimizer.zero_grad()
        learn.loss(batch(256, start=256 * step, step=step))[0].backward()
        optimizer.step()
    after = measured()
    assert after[0] == pytest.approx(before[0], rel=0.02)
    assert after[1] < 0.85 * before[1], (before, after)


def test_the_ends_of_the_bound_are_those_of_torch_distributions() -> None:
    x = ((batch(16).data["image"] + 1) * 127.5).round() / 127.5 - 1
    x[0] = 1.0
    x[1] = -1.0
    gamma = torch.tensor(LAST)
    q = Normal(gamma.neg().sigmoid().sqrt() * x, gamma.sigmoid().sqrt())
    expected = kl_divergence(q, Normal(torch.zeros_like(x), 1.0)).flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(prior_bits(x, LAST), expected, rtol=1e-4, atol=1e-7)

    # p(x_0 | z_0) over all 256 values, proportional to q(z_0 | x_0)
    eps = Noise.of(0, 0, "e", torch.arange(16)).normal("e", *SHAPE).double()
    g = torch.tensor(FIRST, dtype=torch.float64)
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    z = g.neg().sigmoid().sqrt() * x.double() + g.sigmoid().sqrt() * eps
    log_q = Normal(g.neg().sigmoid().sqrt() * values, g.sigmoid().sqrt()).log_prob(z[..., None])
    index = ((x + 1) * 127.5).round().long()
    nats = -log_q.log_softmax(-1).gather(-1, index[..., None]).squeeze(-1)
    torch.testing.assert_close(value_bits(x, eps.float()).double(), nats.flatten(1).mean(1) / math.log(2), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_have_the_data_s_spread(eta: float) -> None:
    with torch.no_grad():
        made = objective(Best(), Straight(), steps=200, eta=eta).sample(Batch({}, Noise.of(0, 0, "s", torch.arange(1000)), 1000)).images
    assert made is not None
    assert made.std().item() == pytest.approx(WIDTH, rel=0.06)
    assert abs(made.mean().item()) < 0.02
