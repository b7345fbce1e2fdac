"""DDPO: densities against diffusers' DDIM step, losses and statistics by hand, and that it makes digits brighter."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.ddpo import Ddpo
from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.api.errors import JobError
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.ddpo import DdpoObjective, log_density
from trainjobs.objectives.diffusion.guidance import Guidance
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.process import cumulative_signal
from trainjobs.objectives.diffusion.sampler import ddim
from trainjobs.objectives.phase import ROW, At, Batch

SHAPE = (1, 8, 8)


class Denoiser(nn.Module):
    """Two layers, told of the time; of a class too, where there is one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        time = (t.float() / 1000).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        if label is not None:
            time = time + label.view(-1, 1, 1, 1)
        found: Tensor = self.last(torch.relu(self.first(torch.cat([x, time], dim=1))))
        return found


def brightness(images: Tensor, prompts: list[str]) -> list[float]:
    return [float(value) for value in images.mean(dim=(1, 2, 3))]


def objective(steps: int = 4, eta: float = 1.0, guidance: Guidance | None = None, **more: Any) -> DdpoObjective:
    drawing = DiffusionObjective(Denoiser(), DiffusionProcess(), Sampler(steps=steps, eta=eta), SHAPE, *([guidance] if guidance else []))
    return DdpoObjective(drawing, Ddpo(reward="a:b", **more), brightness, ("zero", "one"))


def rolled(ours: DdpoObjective, size: int, micro: int, step: int = 0, **data: Tensor) -> dict[str, Tensor]:
    made = []
    with torch.no_grad():
        for start in range(0, size, micro):
            noise = Noise.of(0, step, "rollout", torch.arange(start, start + micro))
            part = {name: value[start : start + micro] for name, value in data.items()}
            made.append(ours.make(Batch(part, noise, micro, At(step))))
        rows = {name: torch.cat([one[name] for one in made]) for name in made[0]}
        rows[ROW] = torch.arange(size)
        return {**rows, **ours.finish(rows, lambda value: value)}


@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_densities_are_those_of_diffusers_ddim_step(eta: float) -> None:
    ours = objective(eta=eta)
    rows = rolled(ours, 3, 3)
    theirs = diffusers.DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=True)
    theirs.alphas_cumprod = cumulative_signal("cosine", 1000)
    theirs.set_timesteps(4)
    assert rows["old"].shape == (3, 3)  # the last of four steps has no density
    for number, t in enumerate(theirs.timesteps[:-1]):
        x, there = rows["states"][:, number].double(), rows["states"][:, number + 1].double()
        with torch.no_grad():
            predicted = ours.drawing.denoiser(x.float(), t.expand(3)).double()
        mean, one = (
            theirs.step(predicted, t, x, eta=eta, use_clipped_model_output=True, variance_noise=torch.full_like(x, value)).prev_sample
            for value in (0.0, 1.0)
        )
        wanted = torch.distributions.Normal(mean, one - mean).log_prob(there).flatten(1).mean(dim=1)
        torch.testing.assert_close(rows["old"][:, number].double(), wanted, rtol=1e-5, atol=1e-5)


def test_what_is_learned_from_is_what_the_sampler_draws_however_it_is_cut() -> None:
    ours = objective()
    whole, cut = rolled(ours, 4, 4), rolled(ours, 4, 2)
    torch.testing.assert_close(whole["states"], cut["states"])
    noise = Noise.of(0, 0, "rollout", torch.arange(4))
    with torch.no_grad():
        drawn = ddim(ours.drawing.look(Batch({}, noise, 4)), ours.drawing.visits(), 1.0, noise, SHAPE)
    torch.testing.assert_close(whole["image"], drawn)


def test_a_first_pass_has_ratios_of_one_and_the_gradient_of_the_density() -> None:
    ours = objective()
    rows = rolled(ours, 8, 8)
    batch = Batch(rows, Noise.of(0, 0, "train", torch.arange(8)), 8)
    loss, metrics = ours.loss(batch)
    assert loss.item() == pytest.approx(-rows["advantage"].mean().item(), abs=1e-5)
    assert metrics["kl/old"].item() < 1e-10
    loss.backward()
    weight: Any = ours.drawing.denoiser.first.weight  # type: ignore[union-attr]
    found = weight.grad.clone()
    weight.grad = None
    total = torch.zeros(())
    for number, visit in enumerate(ours.drawing.visits()[:-1]):
        logs = ours._log_density(batch, visit, rows["states"][:, number], rows["states"][:, number + 1])
        total = total - (rows["advantage"] * logs).mean() / 3
    total.backward()
    torch.testing.assert_close(found, weight.grad, rtol=1e-4, atol=1e-7)
    clipped = ours.loss(Batch({**rows, "old": rows["old"] - 0.1, "advantage": torch.ones(8)}, batch.noise, 8))  # ratios of e^0.1
    assert clipped[0].item() == pytest.approx(-(1 + 1e-4), rel=1e-5)
    assert clipped[1]["clipped"].item() == 1.0


def test_log_density_by_hand() -> None:
    found = log_density(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]), 2.0)
    assert found.item() == pytest.approx(-0.5 * (0.25 + 1.0) / 2 - math.log(2.0) - 0.5 * math.log(2 * math.pi))


def test_statistics_are_the_prompts_own_once_it_has_enough_and_are_kept() -> None:
    ours = objective(prompt_buffer=3, prompt_minimum=2, advantage_clip=1.2)
    first = ours.advantages([1.0, 2.0, 6.0], ["a", "a", "b"])
    deviation = math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 3)  # b has one: those of the batch
    assert first == pytest.approx([-1.0, 1.0, min(1.2, 3 / deviation)], abs=1e-5)
    again = objective(prompt_buffer=3, prompt_minimum=2, advantage_clip=1.2)
    again.load_state(ours.state())
    rewards = [3.0, 5.0]
    values, other = ours.advantages(rewards, ["a", "a"]), again.advantages(rewards, ["a", "a"])
    assert values == other
    mean, spread = 10 / 3, math.sqrt(((2 - 10 / 3) ** 2 + (3 - 10 / 3) ** 2 + (5 - 10 / 3) ** 2) / 3)  # the last three: 2, 3, 5
    assert values == pytest.approx([(3 - mean) / spread, min(1.2, (5 - mean) / spread)], abs=1e-5)
    assert ours.state() == {"rewards": {"a": [2.0, 3.0, 5.0], "b": [6.0]}}


def test_prompts_are_names_of_classes_and_guidance_is_in_both_passes() -> None:
    told: list[str] = []
    ours = objective(guidance=Guidance("label", 2, 0.1, 3.0, 1))
    ours.reward = lambda images, prompts: told.extend(prompts) or brightness(images, prompts)
    rows = rolled(ours, 4, 4, label=torch.tensor([0, 1, 1, 0]))
    assert told == ["zero", "one", "one", "zero"]
    _, metrics = ours.loss(Batch(rows, Noise.of(0, 0, "train", torch.arange(4)), 4))
    assert metrics["kl/old"].item() < 1e-10
    assert set(ours.state()["rewards"]) == {"zero", "one"}


def test_what_the_reward_abstains_of_is_in_no_statistics_and_teaches_nothing() -> None:
    ours = objective(prompt_minimum=4)
    values = [1.0, None, 3.0, 8.0]
    ours.reward = lambda images, prompts: values
    rows = rolled(ours, 4, 2)
    mean, deviation = 4.0, math.sqrt((9 + 1 + 16) / 3)
    assert rows["advantage"].tolist() == pytest.approx([-3 / deviation, 0.0, -1 / deviation, 4 / deviation], abs=1e-5)
    assert ours.state() == {"rewards": {"": [1.0, 3.0, 8.0]}}
    for name, wanted in {"reward": mean, "reward/abstained": 0.25, "reward/deviation": 13**0.5}.items():
        halves = [ours.loss(Batch({key: value[part] for key, value in rows.items()}, Noise.of(0, 0, "train", torch.arange(2)), 2))[1][name]
                  for part in (slice(0, 2), slice(2, 4))]  # fmt: skip
        assert sum(map(float, halves)) / 2 == pytest.approx(wanted)
    loss, _ = ours.loss(Batch({name: value[1:2] for name, value in rows.items()}, Noise.of(0, 0, "train", torch.arange(1)), 1))
    assert loss.item() == 0.0


def test_a_reward_that_abstains_of_everything_is_an_error_that_says_so() -> None:
    ours = objective()
    ours.reward = lambda images, prompts: [None] * len(prompts)
    with pytest.raises(JobError, match="failed at step 6") as failed:
        rolled(ours, 4, 4, step=5)
    assert failed.value.code == "GTJ0221"
    assert "abstained of all 4 images of the step" in failed.value.why


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_makes_digits_brighter(seed: int) -> None:
    """A UNet that has learned digits a little, then 24 steps of rewards for brightness."""
    from trainjobs.data.digits import load
    from trainjobs.models.unet import UNet

    torch.manual_seed(seed)
    denoiser = UNet(image_channels=1, channels=8, multipliers=[1, 2], blocks=1, attention=False, outputs=1, levels=[])
    drawing = DiffusionObjective(denoiser, DiffusionProcess(), Sampler(steps=10, eta=1.0), SHAPE)
    data = torch.from_numpy(load(8))
    learned = torch.optim.Adam(denoiser.parameters(), 2e-3)
    for step in range(100):
        rows = torch.arange(step * 32, step * 32 + 32) % len(data)
        loss, _ = drawing.simple_loss(Batch({"image": data[rows]}, Noise.of(seed, step, "train", rows), 32))
        learned.zero_grad()
        loss.backward()
        learned.step()
    ours = DdpoObjective(drawing, Ddpo(reward="a:b"), brightness)
    optimizer = torch.optim.Adam(denoiser.parameters(), 5e-4)
    means = []
    for step in range(24):
        made = rolled(ours, 64, 64, step)
        means.append(made["reward"].mean().item())
        optimizer.zero_grad()
        ours.loss(Batch(made, Noise.of(seed, step, "train", torch.arange(64)), 64))[0].backward()
        optimizer.step()
    assert sum(means[-3:]) / 3 > sum(means[:3]) / 3 + 0.2, means[::4]
