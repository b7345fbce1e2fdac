"""One process of a group whose runs diverge: `python poisoned.py RANK SIZE STORE RUN...`

A run folder's poison.json says where: {"loss": P} makes the loss NaN in the batch that holds sample P, {"gradient": P} leaves the loss
as it is and makes its gradient NaN, {"every": P} makes it NaN from P on, {"spike": P} makes loss and gradient a thousand times as large,
and {"every spike": P} does from P on; {"kick": P} leaves the loss as it is and makes its gradient two hundred times as large.
{"stop": N} stops the run after N steps, once: named twice it goes on. What the run ended with is written to its result.json.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from torch import Tensor

from tests.checkpointer import at_once
from trainjobs import loop
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.objectives.phase import Batch, Phase
from trainjobs.workers.process import leave
from trainjobs.world import World


class Poisoned:
    """An objective with one phase whose loss is spoilt."""

    def __init__(self, objective: Any, networks: Any, poison: dict[str, int]) -> None:
        self._objective, self._networks, self._poison = objective, networks, poison

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    @property
    def phases(self) -> tuple[Phase, ...]:
        (phase,) = self._objective.phases
        return (Phase(phase.name, trains=phase.trains, loss=self.loss),)

    def loss(self, batch: Batch) -> tuple[Tensor, Any]:
        (phase,) = self._objective.phases
        loss, metrics = phase.loss(batch)
        samples = set(batch.noise.samples.tolist())
        if self._poison.get("loss") in samples or max(samples) >= self._poison.get("every", 10**9):
            loss = loss * float("nan")
        elif self._poison.get("spike") in samples or max(samples) >= self._poison.get("every spike", 10**9):
            loss = loss * 1000
        elif self._poison.get("kick") in samples:
            loss = 200 * loss - 199 * loss.detach()
        elif self._poison.get("gradient") in samples:
            (network,) = self._networks.values()
            loss = loss + (0.0 * sum(p.sum() for p in network.parameters())).sqrt()  # the root's slope at 0 is infinite
        return loss, {**metrics, "loss": loss.detach()}


def main() -> None:
    rank, size = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(sys.argv[3], size), rank=rank, world_size=size)
    build = loop.built
    for run in map(Path, sys.argv[4:]):
        poison = json.loads((run / "poison.json").read_text())

        def poisoned(*arguments: Any, poison: dict[str, int] = poison, **named: Any) -> Any:
            model = build(*arguments, **named)
            return replace(model, objective=Poisoned(model.objective, model.modules, poison))

        def heartbeat(step: int, run: Path = run, poison: dict[str, int] = poison) -> None:
            if rank == 0 and step == poison.get("stop") and not (run / "stopped").exists():
                (run / "stopped").touch()
                (run / "stop").touch()

        loop.built = poisoned
        at_once.choose(run)
        dist.barrier()
        if rank == 0:
            (run / "stop").unlink(missing_ok=True)
        try:
            result: Any = loop.train(
                Job.model_validate_json((run / "job.json").read_text()),
                run,
                World(rank, size, torch.device("cpu")),
                sync_every=poison["talk"],
                heartbeat=heartbeat,
            )
        except JobError as error:
            result = error.to_dict()
        if rank == 0:
            (run / "result.json").write_text(json.dumps(result if isinstance(result, dict) else result.how))
    dist.destroy_process_group()
    leave(0)


if __name__ == "__main__":
    main()
