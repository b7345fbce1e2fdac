"""How cost grows with processes: what a step sends, what a rank holds, what a checkpoint asks of its store, and the first step.

`python -m bench.scale` prints JSON. For each family, ZeRO stage and number of processes a short run of the loop in so many processes, each
of which counts the bytes that it hands to collective operations of torch.distributed in one step (not the first ones, which broadcast the
weights) and the calls of its checkpoints' store. `gtj run` tells the first step. Four processes share the cores that there are, so times of
a step are of use side by side alone; bytes and calls are the same on any machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bench.training import FAMILIES, manifest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SIZES = (1, 2, 4)
STAGES = {"gan": (0, 1, 2), "vae": (0, 1, 2, 3), "diffusion": (0, 1, 2, 3), "language": (0, 1, 2, 3)}
STEPS = 8
# The tensor that is sent, by the number of the argument; what is received is as large, or a world's share of it.
SENT = {
    "all_reduce": 0,
    "reduce": 0,
    "broadcast": 0,
    "all_gather_into_tensor": 0,
    "all_gather": 1,
    "reduce_scatter_tensor": 1,
    "reduce_scatter": 1,
    "all_to_all_single": 1,
    "gather": 0,
}
ASKED = ("put_if_absent", "upload", "get", "read", "entries", "folders", "clear")


def job(family: str, stage: int, processes: int) -> dict[str, Any]:
    answer = manifest(family, FAMILIES[family])
    spec = answer["spec"]
    spec["training"]["steps"] = STEPS
    spec["deepspeed"] = {"stage": stage}
    spec["compute"]["workers"] = processes
    spec["checkpoints"]["every"] = {"steps": STEPS}
    spec["evaluation"]["everySteps"] = STEPS
    return answer


def counted() -> tuple[Counter[str], Counter[str]]:
    """Of this process from here on: bytes by collective operation, and calls of a store of checkpoints by name."""
    import torch.distributed as dist

    from trainjobs.stores.file import FileStore

    moved, asked = Counter[str](), Counter[str]()

    def sized(name: str, call: Callable[..., Any], place: int) -> Callable[..., Any]:
        def counting(*arguments: Any, **keywords: Any) -> Any:
            tensor = arguments[place] if len(arguments) > place else next(iter(keywords.values()))
            moved[name] += sum(one.numel() * one.element_size() for one in (tensor if isinstance(tensor, list) else [tensor]))
            return call(*arguments, **keywords)

        return counting

    def named(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **keywords: Any) -> Any:
            asked[name] += 1
            return call(*arguments, **keywords)

        return counting

    for name, place in SENT.items():
        setattr(dist, name, sized(name, getattr(dist, name), place))
    for name in ASKED:
        setattr(FileStore, name, named(name, getattr(FileStore, name)))
    return moved, asked


def rank(folder: Path, number: int, processes: int) -> dict[str, Any]:
    """One process of a group that trains the run folder below `folder`: seconds and bytes of a step, what it holds, what it asked."""
    moved, asked = counted()
    import psutil
    import torch
    import torch.distributed as dist

    from trainjobs import loop
    from trainjobs.api.job import Job
    from trainjobs.engine.memory import keep_freed_memory
    from trainjobs.optim.schedule import rate
    from trainjobs.world import World

    keep_freed_memory()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "meet"), processes), rank=number, world_size=processes)
    marks: list[tuple[float, Counter[str]]] = []

    def begun(schedule: Any, step: int, total: int) -> float:
        marks.append((time.perf_counter(), Counter(moved)))
        return rate(schedule, step, total)

    loop.rate = begun  # type: ignore[attr-defined]
    model = Job.model_validate_json((folder / "run" / "job.json").read_text())
    started = time.perf_counter()
    loop.train(model, folder / "run", World(number, processes, torch.device("cpu")))
    pairs = [*pairwise(marks[3:])]  # the first steps broadcast weights, and warm up
    step = median(after[0] - before[0] for before, after in pairs)
    sent = max((after[1] - before[1] for before, after in pairs), key=lambda one: sum(one.values()))
    held = psutil.Process().memory_full_info().pss
    return {"seconds": step, "sent": dict(sent), "held": held, "asked": dict(asked), "run": time.perf_counter() - started}


def group(family: str, stage: int, processes: int) -> dict[str, Any]:
    """What each rank found, and what its one checkpoint is made of: objects with tensors, and bytes of all others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run").mkdir()
        (folder / "run" / "job.json").write_text(json.dumps(job(family, stage, processes)))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        command = [sys.executable, "-m", "bench.scale", str(folder), str(processes)]
        every = [
            subprocess.Popen([*command, str(number)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            for number in range(processes)
        ]
        answers = [one.communicate()[0] for one in every]
        assert not any(one.returncode for one in every), answers
        files = [path for path in (folder / "run" / "checkpoints").rglob("*") if path.is_file()]
        tensors = [path for path in files if path.suffix == ".safetensors"]
        about = sum(path.stat().st_size for path in files if path.suffix != ".safetensors")
    ranks = [json.loads(answer.splitlines()[-1]) for answer in answers]
    return {
        "processes": processes,
        "stage": stage,
        "ranks": ranks,
        "objects": len(tensors),
        "others": len(files) - len(tensors),
        "about": about,
    }


def first_step(family: str, processes: int) -> float:
    """Seconds from the command on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job(family, 0, processes)))
        started = time.time()
        subprocess.run([BIN / "gtj", "run", "-f", folder / "job.json"], cwd=folder, check=True, capture_output=True)
        noted = json.loads((folder / "gentrain-runs" / f"bench-{family}" / "timeline.json").read_text())
        return float(noted["since"] + noted["first step"] - started)


def network(family: str) -> dict[str, Any]:
    """Parameters of each network, and how many tensors they are in all."""
    from trainjobs.api.job import Job
    from trainjobs.data import open_source
    from trainjobs.objectives.build import build

    spec = Job.model_validate(manifest(family, FAMILIES[family])).spec
    with tempfile.TemporaryDirectory() as name:
        modules = build(spec, open_source(spec, Path(name)).info).modules
    tensors = sum(1 for module in modules.values() for _ in module.parameters())
    return {"parameters": {name: sum(one.numel() for one in module.parameters()) for name, module in modules.items()}, "tensors": tensors}


def measure() -> list[dict[str, Any]]:
    rows = []
    for family, stages in STAGES.items():
        found: dict[str, Any] = {"family": family, **network(family), "batch": FAMILIES[family]["batch"], "cases": []}
        for processes in SIZES:
            for stage in stages if processes > 1 else (0,):
                found["cases"].append(group(family, stage, processes))
            if processes <= (os.cpu_count() or 1):  # `gtj run` takes no more
                found.setdefault("firstStep", {})[str(processes)] = first_step(family, processes)
        rows.append(found)
    return rows


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(rank(Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[2]))))
    else:
        print(json.dumps(measure()))
