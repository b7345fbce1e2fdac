"""Denoising diffusion policy optimisation: images that are worth more become likelier.

Black et al., "Training diffusion models with reinforcement learning", 2023 (arXiv 2305.13301, DDPO-IS). Images are drawn by DDIM with
eta > 0, each step of which is a Gaussian around mu with the deviation sigma (sampler.py). With the reward R of an image, statistics of the
rewards of its prompt and the step's density, its logarithm meant over the elements of an image as in the authors' code,

    A = clip((R - mean_prompt) / (std_prompt + 1e-6), -advantageClip, advantageClip)
    rho = exp(log p(x_{t-1} | x_t) - log p_old(x_{t-1} | x_t))
    L = mean over steps and images of max(-A rho, -A clip(rho, 1 - clip, 1 + clip))

Statistics are of the prompt's last rewards, so many at most; of the batch, until a prompt has enough. They are state, in every commit. An
image of which the reward function abstains is in none of them, and has A = 0: nothing is learned of it. The last step has no density, as it
adds no noise. Guidance is the same in drawing and in the loss. Steps of the loss are computed one at a
time, again in the backward pass, so a trajectory needs the memory of one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainjobs.api.ddpo import Ddpo
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.sampler import Visit, stepped
from trainjobs.objectives.phase import ROW, Batch, Phase, Rollout, Rows, Samples
from trainjobs.objectives.rewarding import Call

SMALL = 1e-6
FIELD = "diffusion.ddpo.reward"


@dataclass
class DdpoObjective:
    """`drawing` has the network, and draws. `reward` gets images, float32 [B, C, H, W] in [-1, 1] on the CPU, and what each was drawn
    for."""

    drawing: DiffusionObjective
    settings: Ddpo
    reward: Callable[..., Any]
    classes: tuple[str, ...] = ()
    _step: int = field(default=0, init=False)
    _known: dict[str, list[float]] = field(default_factory=dict, init=False)  # the last rewards of each prompt

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="denoiser", loss=self.loss, draws=Rollout(self.make, self.finish), repeat=self.settings.epochs),)

    @property
    def highest_stage(self) -> int:
        return 3

    def state(self) -> dict[str, Any]:
        return {"rewards": {name: list(values) for name, values in self._known.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        self._known = {name: list(values) for name, values in state["rewards"].items()}

    def make(self, batch: Batch) -> Rows:
        """ "states" [B, S + 1, C, H, W], x before each step that has a density and behind the last of them, "old" [B, S], its logarithm,
        "image" [B, C, H, W], and the condition."""
        own = self.drawing
        self._step = batch.at.step
        look, x = own.look(batch), batch.noise.normal("start", *own.shape)
        states, old = [x], []
        for visit in own.visits():
            mean, deviation = stepped(look, x, visit, own.sampler.eta)
            if deviation is None:
                x = mean
                continue
            x = mean + deviation * batch.noise.normal(visit.name, *own.shape)
            old.append(log_density(x, mean, deviation))
            states.append(x)
        rows = {"states": torch.stack(states, dim=1), "old": torch.stack(old, dim=1), "image": x}
        return {**rows, **{name: batch.data[name] for name in self._conditions if name in batch.data}}

    def finish(self, rows: Rows, everywhere: Callable[[Tensor], Tensor]) -> Rows:
        """Adds "reward", NaN where the function abstains, "advantage", and "counted", by which a row counts in the mean of the rewards that
        there are, float32 [B]. JobError GTJ0221, on every rank, where it abstains of all images of the batch."""
        images, prompts = rows["image"].float().cpu(), self._prompts(rows)
        call = Call(self.settings.reward, self.reward, self.settings.time_limit, FIELD, "image", lambda at: f"drawn for {prompts[at]!r}")
        worth = [math.nan if value is None else value for value in call({"images": images, "prompts": prompts}, len(images), self._step)]
        reward_B = torch.tensor(worth, dtype=torch.float32, device=rows["image"].device)
        every = {name: everywhere(rows[name]) for name in self._conditions if name in rows}
        reward_N = everywhere(reward_B)
        told_N = reward_N.isfinite()
        if not told_N.any():
            raise call.failed(self._step, f"it abstained of all {len(told_N)} images of the step", "return a number for some of them")
        names = self._prompts(every) if every else [""] * len(reward_N)
        advantage_N = self.advantages([value if value == value else None for value in reward_N.tolist()], names)
        mine, given_N = rows[ROW], reward_N[told_N]
        counted_N = told_N.float() * (len(told_N) / len(given_N))
        deviation = given_N.std() if len(given_N) > 1 else torch.zeros_like(reward_N[0])
        told = {"reward": reward_B, "deviation": deviation.expand(len(mine)), "counted": counted_N[mine]}
        return {**told, "advantage": torch.tensor(advantage_N, dtype=torch.float32, device=reward_B.device)[mine]}

    def advantages(self, rewards: list[float | None], prompts: list[str]) -> list[float]:
        """Of a batch, whose rewards are remembered; 0 where there is no reward, of which nothing is."""
        own, found = self.settings, [0.0] * len(rewards)
        known = [value for value in rewards if value is not None]
        for prompt in dict.fromkeys(prompts):
            given = {row: value for row, value in enumerate(rewards) if value is not None and prompts[row] == prompt}
            if not given:
                continue
            self._known[prompt] = [*self._known.get(prompt, []), *given.values()][-own.prompt_buffer :]
            enough = len(self._known[prompt]) >= own.prompt_minimum
            mean, deviation = _statistics(self._known[prompt] if enough else known)
            for row, value in given.items():
                found[row] = min(max((value - mean) / (deviation + SMALL), -own.advantage_clip), own.advantage_clip)
        return found

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        own, rows = self.drawing, batch.data
        with_density = [visit for visit in own.visits() if has_density(visit)]
        losses, clipped, moved = [], [], []
        for number, visit in enumerate(with_density):
            x, there = rows["states"][:, number], rows["states"][:, number + 1]
            logs_B = checkpoint(self._log_density, batch, visit, x, there, use_reentrant=False)
            ratio_B, advantage_B = (logs_B - rows["old"][:, number]).exp(), rows["advantage"]
            whole_B = -advantage_B * ratio_B
            cut_B = -advantage_B * ratio_B.clamp(1 - self.settings.clip, 1 + self.settings.clip)
            losses.append(torch.maximum(whole_B, cut_B).mean())
            clipped.append((cut_B > whole_B).float().mean())
            moved.append(0.5 * (logs_B.detach() - rows["old"][:, number]).square().mean())
        loss = torch.stack(losses).mean()
        metrics = {
            "loss": loss.detach(),
            "reward": (rows["reward"].nan_to_num() * rows["counted"]).mean(),
            "reward/abstained": rows["reward"].isnan().float().mean(),
            "reward/deviation": rows["deviation"].mean(),
            "clipped": torch.stack(clipped).mean(),
            "kl/old": torch.stack(moved).mean(),
        }
        return loss, metrics

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The denoising loss: how far it has gone from the data."""
        return self.drawing.heldout(batch)

    def sample(self, batch: Batch) -> Samples:
        return self.drawing.sample(batch)

    def _log_density(self, batch: Batch, visit: Visit, x: Tensor, there: Tensor) -> Tensor:
        mean, deviation = stepped(self.drawing.look(batch), x, visit, self.drawing.sampler.eta)
        assert deviation is not None
        return log_density(there, mean, deviation)

    @property
    def _conditions(self) -> tuple[str, ...]:
        return (self.drawing.guidance.role,) if self.drawing.guidance.role else ()

    def _prompts(self, rows: Rows) -> list[str]:
        """What each row was drawn for: the name of a class, a caption, "" for nothing."""
        role = self.drawing.guidance.role
        if role not in rows:
            return [""] * len(next(iter(rows.values())))
        if role == "label":
            return [self.classes[number] if number < len(self.classes) else str(number) for number in rows[role].tolist()]
        return [bytes(value for value in row if 0 <= value < 256).decode(errors="replace") for row in rows[role].tolist()]


def has_density(visit: Visit) -> bool:
    """Whether the step adds noise, where eta is above 0."""
    return visit.there < 1.0


def log_density(x: Tensor, mean: Tensor, deviation: float | Tensor) -> Tensor:
    """Of a Gaussian, the mean over the elements of each row, float32 [B]. Without a gradient through x."""
    apart = (x.detach() - mean) / deviation
    logarithm = deviation.log() if isinstance(deviation, Tensor) else math.log(deviation)
    return (-0.5 * apart.square() - logarithm - 0.5 * math.log(2 * math.pi)).flatten(1).mean(dim=1)


def _statistics(values: list[float]) -> tuple[float, float]:
    """(mean, standard deviation), the latter without Bessel's correction, as theirs."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
