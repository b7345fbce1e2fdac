"""kill -9 of a worker, of the driver, of everything, of the process that workers are forked from, of the raylet, at random moments: the run
resumes by itself and ends with the same weights.

Five kills by default, one of each kind; GENTRAIN_KILLS=20 for the campaign, GENTRAIN_SEED to repeat one. A hash covers every tensor
of the last commit: weights, optimizer state and moving average of both networks of a GAN.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

STEPS, EVERY = 60, 10
KILLS = int(os.environ.get("GENTRAIN_KILLS", "5"))
SEED = int(os.environ.get("GENTRAIN_SEED", str(random.SystemRandom().randrange(10**6))))
# By what stands in the command of the process.
TARGETS = {
    "worker": "RayTrainWorker",
    "driver": "trainjobs.workers.launch",
    "everything": "",
    "forks": "trainjobs.workers.ray_train.forks",
    "raylet": "--raylet_socket_name",
}

MANIFEST = {
    "apiVersion": "gentrain.dev/v1alpha1",
    "kind": "GenerativeTrainingJob",
    "metadata": {"name": "kill"},
    "spec": {
        "gan": {
            "generator": {"architecture": "dcgan", "latentDim": 16, "channels": 8},
            "discriminator": {"architecture": "dcgan", "channels": 8, "spectralNorm": True},
            "loss": {"type": "hinge"},
        },
        "data": {"source": "builtin:digits", "images": {"size": 16, "channels": 1, "augment": ["horizontalFlip"]}},
        "training": {
            "steps": STEPS,
            "batch": {"global": 32},
            "optimizers": {"default": {"name": "adam", "learningRate": 2e-4, "betas": [0.5, 0.999]}},
            "schedule": {"name": "cosine", "warmupSteps": 10},
            "ema": {"decay": 0.99},
        },
        "deepspeed": {"stage": 2},
        "compute": {"workers": 2, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": EVERY}, "keep": {"last": 2}},
        "evaluation": {"everySteps": 50, "samples": 4},
    },
}


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "trainjobs.cli.main", "run", "-f", str(folder / "job.yaml"), "--run-dir", str(folder / "run")]


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "job.yaml").write_text(json.dumps(MANIFEST))
    with (folder / "output.log").open("ab") as log:
        return subprocess.Popen(command(folder), stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    code = process.wait(timeout=600)
    assert code == 0, (folder / "output.log").read_text()[-3000:]


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """`gtj run` and everything below it: the driver, Ray's processes, the workers."""
    top = psutil.Process(process.pid)
    return [top, *top.children(recursive=True)]


def victims(process: subprocess.Popen[bytes], target: str, dice: random.Random) -> list[psutil.Process]:
    everybody = family(process)
    found = [p for p in everybody if TARGETS[target] in " ".join(_words(p)) and (target == "raylet" or "raylet" not in _words(p)[0])]
    assert found, f"no {target} among {[_words(p)[:4] for p in everybody]}"
    return [dice.choice(found)] if target == "worker" else found


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


def step_of(run: Path) -> int:
    try:
        return int(json.loads((run / "progress.json").read_text()).get("step", 0))
    except (OSError, ValueError):
        return 0


def wait_for(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Until the run has reached the step: polling, since another process does the work."""
    deadline = time.monotonic() + 300
    while step_of(run) < step:
        assert process.poll() is None, "ended before it was killed"
        assert time.monotonic() < deadline, "no progress for five minutes"
        time.sleep(0.01)


def commits(run: Path) -> list[dict[str, Any]]:
    """The log's commits, oldest first."""
    records = [json.loads(path.read_text()) for path in sorted((run / "checkpoints" / "log").glob("*.json"))]
    return [record for record in records if record["kind"] == "commit"]


def digests(run: Path) -> dict[str, str]:
    """Of every tensor of the newest commit, by file and key."""
    newest = commits(run)[-1]["body"]
    assert newest["step"] == STEPS
    folder = run / "checkpoints" / newest["prefix"]
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == 4, "two networks, each in the files of two workers"
    found = {}
    for file in files:
        for key, value in load_file(file).items():
            content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found[f"{file.relative_to(folder)} {key}"] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder), folder)
    return digests(folder / "run")


@pytest.mark.parametrize("number", range(KILLS))
def test_resumes_to_the_same_weights(number: int, undisturbed: dict[str, str], tmp_path: Path) -> None:
    dice = random.Random(f"{SEED}-{number}")
    target, at = [*TARGETS][number % len(TARGETS)], dice.randrange(1, STEPS - EVERY)
    process = start(tmp_path)
    run = tmp_path / "run"
    wait_for(run, at, process)
    doomed = victims(process, target, dice)
    for victim in doomed:
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    killed_at = step_of(run)
    if target == "everything":
        process.wait(timeout=60)
        process = start(tmp_path)
    finish(process, tmp_path)
    print(f"seed {SEED}-{number}: {target} killed at step {killed_at}")
    resumed = [entry["step"] for entry in map(json.loads, (run / "attempts.jsonl").read_text().splitlines()) if entry["event"] == "resumed"]
    # Before the first commit there is nothing to resume: the run begins again, and ends the same. Workers train on for a moment without
    # their raylet, and may be done before they hear of it.
    before = [commit for commit in commits(run) if commit["attempt"] == 1]
    assert resumed or killed_at >= STEPS or not before or target == "raylet", "nothing was resumed"
    ours = digests(run)
    assert ours.keys() == undisturbed.keys()
    assert not [key for key in ours if ours[key] != undisturbed[key]], f"seed {SEED}-{number}, killed at {killed_at}"
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps), "a resumed run left rows of a future that did not happen"
