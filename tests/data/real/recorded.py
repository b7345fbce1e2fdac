"""A custom objective that writes down what it is shown: `custom.objective: tests.data.real.recorded:build`.

Each process appends "position digest" for every sample, in a file of its own below $GENTRAIN_RECORDED: which samples a run saw, and in
which order, whatever the number of processes. At position $GENTRAIN_KILLED it is killed. Its network is as small as can be.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.objectives.phase import Batch, Model, Network, Phase, Samples


class Recorded:
    highest_stage = 3

    def __init__(self) -> None:
        self.net, self.phases = nn.Linear(1, 1), (Phase("train", "net", self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with (Path(os.environ["GENTRAIN_RECORDED"]) / str(os.getpid())).open("a") as file:
            for row, position in enumerate(batch.noise.samples.tolist()):
                file.write(f"{position} {digest({name: value[row] for name, value in batch.data.items()})}\n")
        if int(batch.noise.samples[-1]) >= int(os.environ.get("GENTRAIN_KILLED", sys.maxsize)):
            os.kill(os.getpid(), signal.SIGKILL)
        first = next(iter(batch.data.values())).float().flatten(1)
        loss = (self.net(first.mean(1, keepdim=True)) - first.std(1, keepdim=True)).square().mean()
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def sample(self, batch: Batch) -> Samples:
        return Samples(texts=("none",) * batch.size)


def digest(sample: dict[str, Tensor]) -> str:
    """Of all that a sample is: picture, label, caption; or tokens."""
    found = hashlib.sha256()
    for name in sorted(sample):
        found.update(name.encode() + sample[name].contiguous().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def build(spec: Any, info: Any) -> Model:
    torch.manual_seed(0)
    objective = Recorded()
    return Model({"net": Network(objective.net)}, objective)


def recording(folder: Path) -> dict[int, str]:
    """What was seen at each position, by all processes and attempts; AssertionError when two of them saw different samples there."""
    seen: dict[int, str] = {}
    for path in sorted(folder.iterdir()):
        for line in path.read_text().splitlines():
            position, _, found = line.partition(" ")
            assert seen.setdefault(int(position), found) == found, f"two samples at position {position}"
    return seen
