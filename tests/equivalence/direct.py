"""One process of a group that trains small networks twice at stage 0, by torch alone and by DeepSpeed's engine.

Arguments: RANK SIZE STORE FOLDER.
Each rank writes into FOLDER/direct-SIZE-RANK.json, by case: whether both ended with the same bits, whether the steps did anything, and
the kinds of the two engines.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainjobs.api.job import Spec
from trainjobs.engine.engine import Engine, connect
from trainjobs.objectives.precision import autocast
from trainjobs.optim.groups import grouped
from trainjobs.workers.process import leave
from trainjobs.world import World

MICRO, STEPS = 4, 3
CASES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "clipped": {"gradientClipping": 0.5},
    "accumulated": {"gradientClipping": 0.0, "turns": 3},
    "fp16": {"precision": "fp16", "gradientClipping": 0.5},
    "bf16": {"precision": "bf16"},
    "muon": {"name": "muon"},
    "normed": {"gradientClipping": 0.5, "norm": True},
}


class Network(nn.Module):
    """With a weight that no rank uses, and one that rank 0 alone does."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(rank)  # each rank begins with others: rank 0's count
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        self.mine, self.idle, self.rank = nn.Linear(6, 1), nn.Linear(2, 2), rank

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found + self.mine(x) if self.rank == 0 else found


def spec(case: dict[str, Any], config: dict[str, Any]) -> Spec:
    chosen = {key: value for key, value in case.items() if key in ("gradientClipping", "precision")}
    optimizer = {"name": case.get("name", "adamw"), "learningRate": 0.01}
    training = {"steps": 1, "batch": {"global": 2 * MICRO}, "optimizers": {"default": optimizer}, **chosen}
    return Spec.model_validate({"vae": {}, "data": {"source": "builtin:digits"}, "training": training, "deepspeed": {"config": config}})


def trained(case: dict[str, Any], config: dict[str, Any], world: World) -> tuple[str, bool, list[Tensor]]:
    """The kind of the engine, whether the weights moved; weights before, measures of the steps, weights and optimizer state after them."""
    chosen, turns = spec(case, config), case.get("turns", 1)
    network = Network(world.rank)
    engine = Engine("net", network, grouped("net", network, None, {}, chosen.training.optimizer), chosen, 0, MICRO, world)
    if case.get("norm"):
        engine.watch_norm()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    measured = list[Tensor]()
    for step in range(STEPS):
        engine.begin(step, 1.0)
        for turn in range(turns):
            made = torch.Generator().manual_seed(100 * step + 10 * turn + world.rank)
            with autocast(chosen.training.precision, world.device):
                loss = (network(3.0 * torch.randn(MICRO, 6, generator=made)).float() - 2.0).square().mean()
            engine.backward(loss / turns)
        engine.step()
        measured += [torch.tensor(float(value)) for value in engine.measured().values()]
        if engine.scale:  # the first step overflows, and is skipped; the others do not
            engine.scale.scale = 64.0
    moved = not torch.equal(before[0], next(network.parameters()))
    after = [part.tensor.detach().clone() for part in engine.parts(own=False)]
    return type(engine._engine).__name__, moved, [*before, *measured, *after]


def main() -> None:
    rank, size, store, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
    world = World(rank, size, torch.device("cpu"))
    connect(world)
    found = {}
    for name, case in CASES.items():
        kind, moved, ours = trained(case, {}, world)
        other, _, theirs = trained(case, {"steps_per_print": 1 << 30}, world)
        same = len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        found[name] = {"same": same, "moved": moved, "kinds": [kind, other]}
    (folder / f"direct-{size}-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
    leave(0)


if __name__ == "__main__":
    main()
