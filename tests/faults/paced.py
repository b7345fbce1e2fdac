"""A user's objective whose step takes a fixed time in which no core is busy, as with a GPU: how fast a run gets on then says nothing of the
machine that a test shares. `options.pause` is in seconds, and changes nothing of what is learned.
"""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor, nn

from tests.e2e_local.mean import Mean
from trainjobs.objectives.phase import Batch


class Paced(Mean):
    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause = pause

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        time.sleep(self.pause)
        return super().loss(batch)


def build(spec: Any, info: Any) -> tuple[dict[str, nn.Module], Mean]:
    return Paced(float(spec.custom.options["pause"])).built()
