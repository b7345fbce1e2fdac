"""The smallest objective of a user's own: one linear layer that learns to return its picture. Tests derive what goes wrong from it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trainjobs.objectives.phase import Batch, Phase, Samples


class Mean:
    """`calls` is for who derives from it, to count the micro-batches."""

    def __init__(self) -> None:
        self.network, self.calls = nn.Linear(64, 64), 0
        self.phases = (Phase("train", trains="mean", loss=self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        image = batch.data["image"].flatten(1)
        loss = (self.network(image) - image).square().mean()
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def sample(self, count: int, noise: Any) -> Samples:
        return Samples(texts=("none",))

    def built(self) -> tuple[dict[str, nn.Module], Mean]:
        """What `build` of a custom objective returns."""
        return {"mean": self.network}, self
