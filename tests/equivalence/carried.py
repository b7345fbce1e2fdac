"""Small objectives, one for each thing that the interface carries, as a user would write them: custom.objective "carried:build".

`options.kind` chooses: a rollout, a frozen teacher, a group that thaws, a loss per valid token, a network that grows, a source of pairs, an
encoded source, an objective that adapts. test_carried.py has each again as a plain torch loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.data.source import DataInfo, Source
from trainjobs.noise import Noise
from trainjobs.objectives.phase import Batch, Loss, Model, Network, Phase, Rollout, Samples

THAW, GROW, FADE, CADENCE = 5, 4, 3, 4


class Base:
    """What all of them have in common: one phase, nothing held out, nothing to show."""

    highest_stage = 3

    def __init__(self, net: nn.Module, loss: Loss, **phase: Any) -> None:
        self.net, self.phases = net, (Phase("train", "net", loss, **phase),)

    def heldout(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def sample(self, batch: Batch) -> Samples:
        return Samples(texts=("none",) * batch.size)


def told(loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return loss, {"loss": loss.detach()}


def flat(batch: Batch) -> Tensor:
    return batch.data["image"].flatten(1)


# --- networks, which the plain loops use, too -------------------------------------------------------------------------------------------


class Grown(nn.Module):
    """What is there from the beginning, and what fades in from step GROW on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor, step: int) -> Tensor:
        alpha = min(max(step - GROW + 1, 0) / FADE, 1.0)
        out: Tensor = self.first(x)
        return out + alpha * self.second(x) if alpha else out


def networks(kind: str) -> dict[str, nn.Module]:
    torch.manual_seed(3)
    match kind:
        case "rollout":
            return {"net": nn.Linear(64, 8)}
        case "teacher":
            return {"net": mlp(), "teacher": mlp()}
        case "growing":
            return {"net": Grown()}
        case "encoded":
            return {"net": nn.Linear(16, 64)}
        case _:
            return {"net": mlp()}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 64))


# --- losses -----------------------------------------------------------------------------------------------------------------------------


def reward(action: Tensor, x: Tensor) -> Tensor:
    return -(action - x[:, 20:28]).square().mean(1)


def surrogate(net: nn.Module, x: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
    return (advantage * (net(x) - action).square().sum(1)).mean() * 0.1


def taught(net: nn.Module, teacher: nn.Module, x: Tensor) -> Tensor:
    made = net(x)
    return (made - teacher(x)).square().mean() + 0.3 * (teacher(made) - x).square().mean()


def mask(x: Tensor) -> Tensor:
    """[B, 64]: the first 1 to 60 places of a row, as its picture says."""
    length = 1 + (x.abs().sum(1) * 10).long() % 60
    return (torch.arange(64, device=x.device)[None] < length[:, None]).float()


def masked(net: nn.Module, x: Tensor) -> Tensor:
    valid = mask(x)
    return ((net(x) - x).square() * valid).sum() / valid.sum()


def encode(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    x = rows["image"].flatten(1)
    return {"code": torch.tanh(x[:, ::4] * 2), "image": rows["image"]}


def apart(net: nn.Module, one: Tensor, other: Tensor) -> Tensor:
    return (net(one) - other).square().mean()


class Adapts(Base):
    """The weight of its loss follows the mean of the loss itself."""

    adapts_every = CADENCE

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net, self.loss)
        self.weight = 1.0

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        plain = (self.net(flat(batch)) - flat(batch)).square().mean()
        return plain * self.weight, {"loss": plain.detach()}

    def adapt(self, means: Mapping[str, float]) -> None:
        self.weight = 0.5 * self.weight + means["loss"]

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]


@dataclass(frozen=True)
class Pairs:
    """Each sample beside the one that lies half a data set further on: a source that wraps a source."""

    source: Source

    @property
    def info(self) -> DataInfo:
        return replace(self.source.info, length=self.source.info.length // 2)

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        one = self.source.batch(2 * positions, seed, noise)
        return {**one, "other": self.source.batch(2 * positions + 1, seed, noise)["image"]}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self.source.heldout_batch(indices)


def rollout(net: nn.Module) -> Base:
    def make(batch: Batch) -> dict[str, Tensor]:
        assert not net.training
        x = flat(batch)
        action = net(x) + 0.3 * batch.noise.normal("action", 8)
        return {"x": x, "action": action, "reward": reward(action, x)}

    def finish(rows: Mapping[str, Tensor], everywhere: Any) -> dict[str, Tensor]:
        of_all = everywhere(rows["reward"])
        return {"advantage": ((of_all - of_all.mean()) / (of_all.std() + 1e-4))[rows["row"]]}

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return told(surrogate(net, batch.data["x"], batch.data["action"], batch.data["advantage"]))

    return Base(net, loss, draws=Rollout(make, finish), repeat=4, parts=2)


def build(spec: Any, info: Any) -> Model:
    kind = spec.custom.options["kind"]
    made = networks(kind)
    net = made["net"]
    match kind:
        case "rollout":
            return Model({"net": Network(net)}, rollout(net))
        case "teacher":
            teacher = made["teacher"]
            objective = Base(net, lambda batch: told(taught(net, teacher, flat(batch))))
            return Model({"net": Network(net), "teacher": Network(teacher, groups={})}, objective)
        case "thaw":
            assert isinstance(net, nn.Sequential)
            groups = {"head": list(net[2].parameters()), "body": list(net[0].parameters())}
            objective = Base(net, lambda batch: told((net(flat(batch)) - flat(batch)).square().mean()))
            return Model({"net": Network(net, groups, {"body": THAW})}, objective)
        case "tokens":
            objective = Base(net, lambda batch: told(masked(net, flat(batch))), weigh=lambda batch: mask(flat(batch)).sum())
            return Model({"net": Network(net)}, objective)
        case "growing":
            assert isinstance(net, Grown)
            groups = {"first": list(net.first.parameters()), "second": list(net.second.parameters())}
            objective = Base(net, lambda batch: told((net(flat(batch), batch.at.step) - flat(batch)).square().mean()))
            return Model({"net": Network(net, groups, {"second": GROW})}, objective)
        case "pairs":
            objective = Base(net, lambda batch: told(apart(net, flat(batch), batch.data["other"].flatten(1))))
            return Model({"net": Network(net)}, objective)
        case "encoded":
            objective = Base(net, lambda batch: told(apart(net, batch.data["code"], flat(batch))))
            return Model({"net": Network(net)}, objective, encode)
    return Model({"net": Network(net)}, Adapts(net))
