"""Seconds from the command to the end of the first optimizer step, two processes: `gtj run` against torchrun with a bare script.

The two take turns, after one round that warms the caches of both (bytecode, page cache). Our own time is also told in parts, from the
times that the run notes in its timeline.json.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.training import FAMILIES, manifest

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2


def job() -> dict[str, Any]:
    """The VAE of the training benchmark on the digits, two workers, ZeRO stage 2, ten steps."""
    answer = manifest("vae", FAMILIES["vae"])
    spec = answer["spec"]
    spec["data"] = {"source": "builtin:digits", "images": {"size": 16, "channels": 1}}
    spec["training"]["steps"] = 10
    spec["deepspeed"] = {"stage": 2}
    spec["compute"]["workers"] = WORKERS
    spec["checkpoints"]["every"] = {"steps": 10}
    spec["evaluation"]["everySteps"] = 10
    return answer


def ours(folder: Path, path: Path) -> tuple[float, dict[str, float]]:
    """Seconds to the first step, and the timeline in seconds since the command."""
    started = time.time()
    subprocess.run([BIN / "gtj", "run", "-f", path], cwd=folder, check=True, capture_output=True)
    noted = json.loads((folder / "gentrain-runs" / "bench-vae" / "timeline.json").read_text())
    began = noted.pop("since") - started
    parts = {"driver started": began} | {name: began + seconds for name, seconds in sorted(noted.items(), key=lambda item: item[1])}
    return parts["first step"], parts


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def bare(folder: Path, path: Path) -> float:
    answer = folder / "first-step"
    started = time.time()
    script = ROOT / "bench" / "bare_deepspeed.py"
    command = [BIN / "torchrun", "--nproc-per-node", str(WORKERS), "--master-port", str(free_port()), script, path, answer]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return float(answer.read_text()) - started


def measure(pairs: int) -> list[dict[str, Any]]:
    """{"ours", "bare", "timeline"} in seconds, per pair."""
    os.environ["OMP_NUM_THREADS"] = "1"
    results = []
    for turn in range(-1, pairs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "job.json"
            path.write_text(json.dumps(job()))
            if turn % 2:
                peer = bare(folder, path)
                mine, timeline = ours(folder, path)
            else:
                mine, timeline = ours(folder, path)
                peer = bare(folder, path)
        if turn >= 0:
            results.append({"ours": mine, "bare": peer, "timeline": timeline})
    return results
