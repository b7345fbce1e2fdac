"""Each family beside what a user would pick instead: the same network, data, batch, precision and optimizer, on one thread.

`measure` has ours and the peers of a family take turns, each in a fresh process that

    python -m bench.peers FAMILY WAY FOLDER SECONDS

is: it reads networks and data that were made before, trains, and prints samples per second (after WARM steps), the seconds from its start
to the end of the first step, and its memory at the end of the last. Ours is `trainjobs.loop` with its metrics and files, its checkpoint
and evaluation after the last step left out. What is not installed is said to be missing; MISSING says how to get it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.training import FAMILIES, RATE, SEED, manifest

OURS = "gentrain"
# By family and name, what it needs beside our own dependencies.
PEERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "gan": {"accelerate": ("accelerate",), "Lightning": ("lightning",)},
    "vae": {"pythae": ("pythae",), "Lightning": ("lightning",)},
    "diffusion": {"diffusers' script": ("accelerate",)},
    "language": {"Trainer": ("accelerate",), "Trainer with DeepSpeed": ("accelerate",), "SFTTrainer": ("trl", "datasets")},
}
PACKAGES = "trl datasets dill multiprocess xxhash lightning lightning-utilities pytorch-lightning torchmetrics pythae imageio"
MISSING = f"uv pip install --target FOLDER --no-deps -c constraints.txt {PACKAGES}; then PYTHONPATH=FOLDER make bench NAMES=peers"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def measure(rounds: int, root: Path, families: Mapping[str, Any] = FAMILIES) -> list[dict[str, Any]]:
    """A row for each family: {"family", "versions", "missing", "rounds": [{way: {"rate", "rate_processor", "first", "memory"}}]}."""
    rows = []
    for family, case in families.items():
        needed = PEERS[family]
        lacking = {way: [name for name in names if find_spec(name) is None] for way, names in needed.items()}
        missing = {way: names for way, names in lacking.items() if names}
        for way, names in missing.items():
            print(f"{family}: {way} is left out, without {', '.join(names)}: {MISSING}", file=sys.stderr)
        ways = [OURS, *(way for way in needed if way not in missing)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            started(root, "prepare", family, json.dumps(case), folder)
            found = []
            for number in range(rounds):
                turn = ways[number % len(ways) :] + ways[: number % len(ways)]
                row = {way: json.loads(started(root, family, way, folder, time.time())) for way in turn}
                print(f"{family} {number}: {json.dumps(row)}", file=sys.stderr, flush=True)
                found.append({way: row[way] for way in ways})
        known = {name: version(name) for way in ways[1:] for name in needed[way]}
        rows.append({"family": family, "versions": known, "missing": missing, "rounds": found})
    return rows


def started(root: Path, *arguments: object) -> str:
    command = [sys.executable, "-m", "bench.peers", *map(str, arguments)]
    done = subprocess.run(command, cwd=root, env=os.environ | ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1]


def prepare(family: str, case: Mapping[str, Any], folder: Path) -> None:
    """The job, its data in our cache, and for the others networks and data as torch keeps them."""
    import torch

    from trainjobs.api.job import Job
    from trainjobs.data import open_source
    from trainjobs.noise import Noise
    from trainjobs.objectives.build import build

    told = manifest(family, dict(case))
    (folder / "job.json").write_text(json.dumps(told))
    job = Job.model_validate(told)
    source = open_source(job.spec, folder / "cache")
    everything = torch.arange(min(source.info.length, 4096))
    data = source.batch(everything, SEED, Noise.of(SEED, 0, "bench", everything))
    torch.manual_seed(SEED)
    modules = dict(build(job.spec, source.info).modules)
    if family == "language":
        modules["model"].set_attn_implementation("sdpa")  # transformers' own, as the others know it
    torch.save({"networks": modules, "data": next(iter(data.values())).contiguous()}, folder / "made.pt")
    print(len(everything))


def ours(folder: Path, clock: Any) -> None:
    import torch
    import torch.distributed as dist

    from bench.training import trained
    from trainjobs.api.job import Job
    from trainjobs.engine.memory import keep_freed_memory

    keep_freed_memory()  # as every worker does
    job = Job.model_validate_json((folder / "job.json").read_text())
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "cache").symlink_to(folder / "cache")
        dist.init_process_group("gloo", init_method=f"file://{name}/store", rank=0, world_size=1)
        torch.set_num_threads(1)
        trained(job, Path(name), ended=clock.ended)
        dist.destroy_process_group()


def theirs(family: str, way: str) -> Callable[..., Any]:
    if family == "language":
        from bench import language_peers

        return {
            "Trainer": language_peers.trainer,
            "Trainer with DeepSpeed": language_peers.deepspeed_trainer,
            "SFTTrainer": language_peers.sft_trainer,
        }[way]
    from bench import family_peers

    return {
        ("gan", "accelerate"): family_peers.gan_accelerate,
        ("gan", "Lightning"): family_peers.gan_lightning,
        ("vae", "pythae"): family_peers.vae_pythae,
        ("vae", "Lightning"): family_peers.vae_lightning,
        ("diffusion", "diffusers' script"): family_peers.diffusion_script,
    }[family, way]


def one(family: str, way: str, folder: Path, begun: float) -> Mapping[str, float]:
    """What a process was started for, at `begun`."""
    from bench.clock import Clock

    training = json.loads((folder / "job.json").read_text())["spec"]["training"]
    size, clock = training["batch"]["global"], Clock(training["steps"])
    if way == OURS:
        ours(folder, clock)
    else:
        import torch

        made = torch.load(folder / "made.pt", weights_only=False)
        torch.manual_seed(SEED)
        if family == "language":
            theirs(family, way)(made["networks"], made["data"], size, RATE, clock.total, ended=clock.ended)
        else:
            theirs(family, way)(made["networks"], made["data"], size, RATE, clock)
    return clock.told(size, begun)


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4]))
    else:
        print(json.dumps(one(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))))
