"""Runs jobs in groups of processes, and reads what they leave: losses from metrics.jsonl, weights from the last commit.

Weights are put together from the shards by the safetensors library and a few lines here, not by code of this project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tests.equivalence import nursery

ROOT = Path(__file__).resolve().parents[2]


def job(spec: dict[str, Any], name: str = "test") -> dict[str, Any]:
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": name}, "spec": spec}


def prepare(run: Path, spec: dict[str, Any]) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    (run / "job.json").write_text(json.dumps(job(spec)))
    return run


def run_group(
    size: int, runs: list[str], scratch: Path, timeout: float = 900, *, script: str = "worker.py", extra: dict[str, str] | None = None
) -> None:
    """Train every run folder of `runs` (see worker.py) in one group of `size` processes; their output is shown when they fail.

    Another `script`, of this folder or by its whole path, gets the same arguments; with `extra`, which is added to the environment, each
    process is one that imports everything in that environment, and else a fork of one that has (nursery.py).
    """
    store = scratch / f"store-{size}-{len(list(scratch.glob('store-*')))}"
    path = ":".join(filter(None, (str(ROOT), str(ROOT / "operator"), os.environ.get("PYTHONPATH"))))
    ours = {"PYTHONPATH": path, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **ours, **(extra or {})}
    command = [str(Path(__file__).parent / script)]
    logs = [scratch / f"{store.name}-rank-{rank}.log" for rank in range(size)]
    started = [
        (own if extra else nursery.fork)(rank, [*command, str(rank), str(size), str(store), *runs], environment, logs[rank])
        for rank in range(size)
    ]
    try:
        codes = [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait(60)
    if any(codes):
        raise AssertionError(f"exit codes {codes}\n" + "\n--- next rank ---\n".join(log.read_text()[-3000:] for log in logs))


def own(rank: int, command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as file:
        return subprocess.Popen([sys.executable, *command], env=environment, stdout=file, stderr=subprocess.STDOUT)


def losses(run: Path, name: str = "loss") -> list[float]:
    """The metric at every step, in order."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def last_commit(run: Path) -> Path:
    """The folder of the newest committed step."""
    records = [json.loads(path.read_text()) for path in sorted((run / "checkpoints" / "log").glob("*.json"))]
    commits = [record for record in records if record["kind"] == "commit"]
    return run / "checkpoints" / str(commits[-1]["body"]["prefix"])


def weights(run: Path, network: str, kind: str = "fp32") -> dict[str, Tensor]:
    """fp32 weights of one network at the last commit (or tensors of another kind), whatever the stage and the number of workers."""
    whole: dict[str, Tensor] = {}
    for path in sorted(last_commit(run).glob(f"rank-*/{network}.safetensors")):
        with safe_open(path, framework="pt") as file:
            cut = json.loads(file.metadata()["slices"])
            for key in list(file.keys()):
                if key.startswith(f"{kind}/"):
                    found = file.get_tensor(key)
                    start, shape = cut.get(key, (0, list(found.shape)))
                    into = whole.setdefault(key.removeprefix(f"{kind}/"), torch.full(shape, torch.nan))
                    into.view(-1)[start : start + found.numel()] = found.reshape(-1)
    assert whole, f"no {kind} of {network}"
    return whole
