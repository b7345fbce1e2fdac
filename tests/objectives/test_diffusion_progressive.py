"""One step of the student is two of the teacher's: against diffusers' DDIM, and against the sampler that will draw."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.api.job import API_VERSION, KIND
from trainjobs.api.parse import parse
from trainjobs.models.unet import UNet
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.prediction import Prediction, image
from trainjobs.objectives.diffusion.process import cumulative_signal
from trainjobs.objectives.diffusion.progressive import Halving
from trainjobs.objectives.diffusion.sampler import ddim, told, visits
from trainjobs.objectives.phase import Batch

STEPS, BATCH = 4, 16


def unet(seed: int) -> UNet:
    torch.manual_seed(seed)
    network = UNet(image_channels=1, channels=8, multipliers=[1, 2], blocks=1, attention=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.15)
    return network


def halving(prediction: Prediction, *, zero: bool = False, student: nn.Module | None = None, teacher: nn.Module | None = None) -> Halving:
    process = DiffusionProcess(prediction=prediction, timesteps=1000, schedule="cosine", zero_terminal_snr=zero)
    objective = DiffusionObjective(student or unet(1), process, Sampler(steps=STEPS), (1, 8, 8))
    return Halving(objective, teacher or unet(2).requires_grad_(False))


def batch(seed: int = 0, size: int = BATCH) -> Batch:
    samples = torch.arange(size)
    x = Noise.of(5, 0, "x", samples).normal("x", 1, 8, 8).clamp(-1, 1)
    return Batch({"image": x}, Noise.of(seed, 0, "train.0", samples), size)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["v", "sample"])
def test_the_loss_is_that_of_two_steps_of_diffusers(prediction: Prediction) -> None:
    from diffusers import DDIMScheduler

    kind = {"v": "v_prediction", "sample": "sample"}[prediction]
    scheduler = DDIMScheduler(
        1000, beta_schedule="squaredcos_cap_v2", prediction_type=kind, timestep_spacing="trailing", clip_sample=True, set_alpha_to_one=True
    )
    found, given = halving(prediction), batch()
    scheduler.set_timesteps(2 * STEPS)
    numbers, x = given.noise.integers("step", STEPS, 1)[:, 0], given.data["image"]
    eps = given.noise.normal("epsilon", 1, 8, 8)
    terms = []
    for row, number in enumerate(numbers.tolist()):
        t, middle = (int(scheduler.timesteps[2 * number + offset]) for offset in (0, 1))
        z = start = scheduler.add_noise(x[row : row + 1], eps[row : row + 1], torch.tensor([t]))
        for time in (t, middle):
            output = found.teacher(z, torch.tensor([time]))
            z = scheduler.step(output, time, z, use_clipped_model_output=True).prev_sample
        a, s = scheduler.alphas_cumprod[t] ** 0.5, (1 - scheduler.alphas_cumprod[t]) ** 0.5
        last = scheduler.alphas_cumprod[int(scheduler.timesteps[2 * number + 2])] if number < STEPS - 1 else torch.tensor(1.0)
        a2, s2 = last**0.5, (1 - last) ** 0.5
        wanted = (z - s2 / s * start) / (a2 - s2 / s * a)
        ours = found.objective.denoiser(start, torch.tensor([t]))
        ours = a * start - s * ours if prediction == "v" else ours
        terms.append(max(float(a**2 / s**2), 1.0) * ((wanted - ours) ** 2).mean())
    loss, metrics = found.loss(given)
    expected = torch.stack(terms).mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert metrics["loss"].item() == loss.item()
    assert set(numbers.tolist()) == set(range(STEPS))


class Knows(nn.Module):
    """A student that says at every time of its own what leads where two steps of the teacher's lead."""

    def __init__(self, teacher: nn.Module, prediction: Prediction) -> None:
        super().__init__()
        self.teacher, self.prediction = teacher, prediction

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        abar = cumulative_signal("cosine", 1000).tolist()
        fine = visits(abar, 2 * STEPS)
        at = [visit.time for visit in fine].index(int(t[0]))
        end, first = z, fine[at]
        for visit in fine[at : at + 2]:
            x0 = image(self.prediction, self.teacher(end, told(visit.time, end)), end, visit.here**0.5, (1 - visit.here) ** 0.5)
            x0 = x0.clamp(-1, 1)
            noise = (end - visit.here**0.5 * x0) / (1 - visit.here) ** 0.5
            end = visit.there**0.5 * x0 + (1 - visit.there) ** 0.5 * noise
        a, s = first.here**0.5, (1 - first.here) ** 0.5
        a2, s2 = fine[at + 1].there ** 0.5, (1 - fine[at + 1].there) ** 0.5
        x0 = (end - s2 / s * z) / (a2 - s2 / s * a)
        return x0 if self.prediction == "sample" else (a * z - x0) / s


def test_a_student_that_has_learned_it_draws_the_teachers_samples_in_half_the_steps() -> None:
    teacher = unet(2)
    student, abar = Knows(teacher, "v"), cumulative_signal("cosine", 1000).tolist()
    noise = Noise.of(1, 0, "sample", torch.arange(3))

    def look(network: nn.Module) -> Any:
        return lambda x, visit: (image("v", network(x, told(visit.time, x)), x, visit.here**0.5, (1 - visit.here) ** 0.5), None)

    with torch.no_grad():
        theirs = ddim(look(teacher), visits(abar, 2 * STEPS), 0.0, noise, (1, 8, 8))
        ours = ddim(look(student), visits(abar, STEPS), 0.0, noise, (1, 8, 8))
    inside = theirs.abs() < 1  # images are clipped at the last step
    assert inside.float().mean() > 0.2
    assert (ours - theirs)[inside].abs().max() < 1e-2


def test_nothing_is_left_to_learn_then() -> None:
    """One time of each row by itself, because it looks up its own."""
    teacher = unet(2)
    found = halving("sample", student=Knows(teacher, "sample"), teacher=teacher)
    losses = [found.loss(Batch(_row(batch(), n), Noise.of(0, 0, "train.0", torch.tensor([n])), 1))[0].item() for n in range(BATCH)]
    assert max(losses) < 1e-6


def _row(given: Batch, number: int) -> dict[str, Tensor]:
    return {name: value[number : number + 1] for name, value in given.data.items()}


def test_it_is_a_mean_over_samples_and_begins_without_signal_too() -> None:
    found = halving("v", zero=True)
    whole = found.loss(batch())[0]
    parts = [found.loss(Batch(_row(batch(), n), Noise.of(0, 0, "train.0", torch.tensor([n])), 1))[0] for n in range(BATCH)]
    assert whole.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-4)
    whole.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in found.objective.denoiser.parameters())
    assert all(p.grad is None for p in found.teacher.parameters())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"diffusion": {"process": {"prediction": "epsilon"}, "sampler": {"steps": 4}}}, "use prediction: v or sample"),
        ({"diffusion": {"process": {"prediction": "flow"}, "sampler": {"steps": 4}}}, "use prediction: v or sample"),
        ({"diffusion": {"process": {"prediction": "v", "learnedVariance": True}, "sampler": {"steps": 4}}}, "without learnedVariance"),
        ({"diffusion": {"process": {"prediction": "v"}, "sampler": {"steps": 3}}}, "twice as many divide"),
        ({"diffusion": {"process": {"prediction": "v"}, "sampler": {"steps": 4, "eta": 1.0}}}, "eta: 0"),
        ({"language": {}}, "no sampler to be halved"),
    ],
)
def test_what_does_not_go_together_is_refused(spec: dict[str, Any], words: str) -> None:
    distillation = {"teacher": "s3://bucket/teacher", "progressive": True}
    source = "builtin:stdlib-text" if "language" in spec else "builtin:shapes"
    whole = {**spec, "data": {"source": source}, "training": {"steps": 1, "distillation": distillation}}
    _, problems = parse({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": whole})
    assert any(words in f"{problem.what} {problem.why} {problem.how}" for problem in problems), problems
