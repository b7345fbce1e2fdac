"""Progressive distillation: a student learns to do in one step of DDIM what its teacher does in two. `training.distillation.progressive`.

Salimans and Ho, "Progressive distillation for fast sampling of diffusion models", 2022 (arXiv 2202.00512, algorithm 2). Of the N steps of
the student's sampler one is drawn, from t over t' to t'', and z_t = a_t x + s_t eps; two of the teacher's 2 N steps lead from z_t to z_t''.
The image that leads there in one is

    x~ = (z_t'' - (s_t'' / s_t) z_t) / (a_t'' - (s_t'' / s_t) a_t),   L = E max(SNR_t, 1) mean (x~ - x(f(z_t, t)))^2

with the truncated weight of section 4, a mean over samples. As in our sampler, the teacher's images are clipped to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.prediction import image
from trainjobs.objectives.diffusion.process import cumulative_signal
from trainjobs.objectives.diffusion.sampler import visits
from trainjobs.objectives.phase import Batch


@dataclass(frozen=True)
class Halving:
    """`objective` is the student's, whose sampler has N steps; 2 N divides the timesteps, so the teacher's hold the student's."""

    objective: DiffusionObjective
    teacher: nn.Module

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        objective, x = self.objective, batch.data["image"].float()
        abar = cumulative_signal(*objective.schedule)
        steps = visits(abar.tolist(), 2 * objective.sampler.steps)
        here = torch.tensor([visit.here for visit in steps] + [1.0], dtype=torch.float64, device=x.device)  # behind all: no noise
        times = torch.tensor([visit.time for visit in steps], device=x.device)
        number_B = 2 * batch.noise.integers("step", objective.sampler.steps, 1)[:, 0]
        signal, noise = here.sqrt().float(), (1.0 - here).sqrt().float()

        def at(values: Tensor, offset: int) -> Tensor:
            return values[number_B + offset].view(-1, 1, 1, 1)

        told = objective.guidance.trained(batch)
        a, s = at(signal, 0), at(noise, 0)
        z = first = a * x + s * batch.noise.normal("epsilon", *x.shape[1:])
        with torch.no_grad():
            for offset in (0, 1):
                a_here, s_here = at(signal, offset), at(noise, offset)
                predicted = self.teacher(z, times[number_B + offset], *told).float()
                x0 = image(objective.prediction, predicted, z, a_here, s_here).clamp(-1.0, 1.0)
                z = at(signal, offset + 1) * x0 + at(noise, offset + 1) / s_here * (z - a_here * x0)
            ratio = at(noise, 2) / s
            wanted = (z - ratio * first) / (at(signal, 2) - ratio * a)
        ours = image(objective.prediction, objective.denoiser(first, times[number_B], *told).float(), first, a, s)
        loss = ((a / s).square().clamp(min=1.0) * (wanted - ours).square()).mean()
        return loss, {"loss": loss.detach()}
