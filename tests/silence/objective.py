"""A tiny objective of a user's own: custom.objective "tests.silence.objective:build". `options.width` is that of its one hidden layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.objectives.phase import Batch, Model, Network, Phase, Samples

REFERENCE = 1.0  # what the weights are filled with that nobody trains


class Rebuilds:
    """Squared error of a picture that went through a layer that is too narrow for it."""

    highest_stage = 3

    def __init__(self, net: nn.Module, scale: float) -> None:
        self.net, self.scale, self.phases = net, scale, (Phase("train", "net", self.loss),)
        self.reference = nn.Linear(2, 2, bias=False)
        nn.init.constant_(self.reference.weight, REFERENCE)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        flat = batch.data["image"].flatten(1)
        loss = self.scale * (self.net(flat) - flat).square().mean()
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        flat = batch.data["image"].flatten(1)
        found = (self.net(flat) - flat).square().mean(1)
        return {"loss": (found.sum(), torch.tensor(float(len(found))))}

    def sample(self, batch: Batch) -> Samples:
        return Samples(texts=("none",) * batch.size)


def build(spec: Any, info: Any) -> Model:
    options, pixels = spec.custom.options, info.shape[0] * info.shape[1] * info.shape[2]
    net = nn.Sequential(nn.Linear(pixels, options.get("width", 4)), nn.Tanh(), nn.Linear(options.get("width", 4), pixels))
    return Model({"net": Network(net)}, Rebuilds(net, options.get("scale", 1.0)))


def other(spec: Any, info: Any) -> Model:
    """The same network, of which another loss is minimised."""
    made = build(spec, info)
    net = made.networks["net"].module
    return Model({"net": Network(net)}, Rebuilds(net, 3.0))


def brightness(images: Tensor, prompts: list[str]) -> list[float]:
    """What images are worth, of ddpo."""
    return [float(value) for value in images.mean(dim=(1, 2, 3))]


def darkness(images: Tensor, prompts: list[str]) -> list[float]:
    return [-value for value in brightness(images, prompts)]
