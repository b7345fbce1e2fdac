"""One rank of a group: the most bytes that torch has in two real steps, by family, ZeRO stage and precision.

Arguments as those of tests/equivalence/worker.py: rank, size, store, and a folder, in which each rank leaves `peaks-<rank>.json`.
"""

from __future__ import annotations

import gc
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.engine.engine import Engine, connect, flowing
from trainjobs.engine.fake_step import Live
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import At, Batch
from trainjobs.objectives.precision import autocast
from trainjobs.objectives.shaped import phases_of, shaped
from trainjobs.world import World

ROWS, CPU = 8, torch.device("cpu")
INFO = {
    "vae": DataInfo("image", (3, 32, 32), 100, 5),
    "language": DataInfo("text", (64,), 100, 5, vocabulary=257, tokenizer=ByteTokenizer()),
}
FAMILIES: dict[str, dict[str, Any]] = {
    "vae": {"vae": {"network": {"channels": 64}}},
    "language": {"language": {"network": {"layers": 4, "hidden": 192, "heads": 4, "contextLength": 64}}},
}
STAGES, PRECISIONS = (1, 2, 3), ("fp32", "bf16")
CASES = list(product(FAMILIES, STAGES, PRECISIONS))


def job(family: str, precision: str) -> Spec:
    source = "builtin:stdlib-text" if family == "language" else "builtin:shapes"
    training = {"steps": 10, "batch": {"global": 2 * ROWS}, "precision": precision, "gradientClipping": 0}
    return Spec.model_validate({**FAMILIES[family], "data": {"source": source}, "training": training})


def rows(family: str) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    if family == "language":
        return {"tokens": torch.randint(257, (ROWS, 65), generator=made)}
    return {"image": torch.rand(ROWS, 3, 32, 32, generator=made) * 2 - 1}


def peak(family: str, stage: int, precision: str, world: World) -> int:
    """Of the networks, DeepSpeed's engines and two steps: every storage that torch makes, followed until nobody holds it."""
    spec, given = job(family, precision), rows(family)
    gc.collect()
    with Live() as live:
        model = build(spec, INFO[family])
        for module in model.modules.values():
            for tensor in (*module.parameters(), *module.buffers()):
                live.see(tensor)
        groups, _ = shaped(model, spec)
        engines = {name: Engine(name, model.modules[name], own, spec, stage, ROWS, world) for name, own in groups.items()}
        for step in range(2):
            for engine in engines.values():
                engine.begin(step, 1.0)
            for phase in phases_of(model.objective, model.modules, spec):
                with flowing(engines, phase.trains):
                    noise = Noise.of(0, step, phase.name, torch.arange(ROWS))
                    with autocast(precision, CPU):
                        loss, _ = phase.loss(Batch(given, noise, ROWS, At(step, 0, 10)))
                    engines[phase.trains].backward(loss)
                    del loss
                    engines[phase.trains].step()
    return live.peak


def main() -> None:
    rank, size, store, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
    world = World(rank, size, CPU)
    connect(world)
    found = {f"{family} {stage} {precision}": peak(family, stage, precision, world) for family, stage, precision in CASES}
    (folder / f"peaks-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
