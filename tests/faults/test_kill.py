"""kill -9 of a worker, of the driver, of everything, at random moments: the run resumes by itself and ends with the same weights.

Three kills by default, one of each kind; GENTRAIN_KILLS=20 for the campaign, GENTRAIN_SEED to repeat one. A hash covers every tensor
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

pytestmark = pytest.mark.slow

STEPS, EVERY = 400, 20
KILLS = int(os.environ.get("GENTRAIN_KILLS", "3"))
SEED = int(os.environ.get("GENTRAIN_SEED", str(random.SystemRandom().randrange(10**6))))
TARGETS = ("worker", "driver", "everything")

MANIFEST = {
    "apiVersion": "gentrain.dev/v1alpha1",
    "kind": "GenerativeTrainingJob",
    "metadata": {"name": "kill"},
    "spec": {
        "gan": {
            "generator": {"architecture": "dcgan", "latentDim": 16, "channels": 16},
            "discriminator": {"architecture": "dcgan", "channels": 16, "spectralNorm": True},
            "loss": {"type": "hinge"},
        },
        "data": {"source": "builtin:digits", "images": {"size": 16, "channels": 1, "augment": ["horizontalFlip"]}},
        "training": {
            "steps": STEPS,
            "batch": {"global": 32},
            "optimizers": {"default": {"name": "adam", "learningRate": 2e-4, "betas": [0.5, 0.999]}},
            "schedule": {"name": "cosine", "warmupSteps": 20},
            "ema": {"decay": 0.99},
        },
        "deepspeed": {"stage": 2},
        "compute": {"workers": 2, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": EVERY}, "keep": {"last": 2}},
        "evaluation": {"everySteps": 200, "samples": 4},
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
    if target == "everything":
        return everybody
    sign = "trainjobs.launch" if target == "driver" else "RayTrainWorker"
    found = [p for p in everybody if sign in " ".join(_words(p)) and "raylet" not in _words(p)[0]]
    assert found, f"no {target} among {[_words(p)[:4] for p in everybody]}"
    return found if target == "driver" else [dice.choice(found)]


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


def digests(run: Path) -> dict[str, str]:
    """Of every tensor and number of the newest commit, by file and key."""
    commits = []
    for path in sorted((run / "checkpoints" / "log").glob("*.json")):
        entry = json.loads(path.read_text())
        if entry["kind"] == "commit":
            commits.append(entry["body"])
    newest = max(commits, key=lambda body: int(body["step"]))
    assert newest["step"] == STEPS
    folder = run / "checkpoints" / newest["prefix"]
    files = sorted(folder.rglob("*.pt"))
    assert len(files) == 8, "weights of two networks, optimizer shards of two workers each, moving averages of two workers"
    found = {}
    for file in files:
        for key, value in leaves(torch.load(file, weights_only=False, map_location="cpu"), ""):
            content = value.contiguous().view(torch.uint8).numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
            found[f"{file.relative_to(folder)}{key}"] = hashlib.sha256(content).hexdigest()
    return found


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from leaves(value[key], f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}/{index}")
    elif isinstance(value, torch.Tensor):
        yield path, value.detach().reshape(-1) if value.dim() == 0 else value.detach()
    elif isinstance(value, bool | int | float):
        yield path, value


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder), folder)
    return digests(folder / "run")


@pytest.mark.parametrize("number", range(KILLS))
def test_resumes_to_the_same_weights(number: int, undisturbed: dict[str, str], tmp_path: Path) -> None:
    dice = random.Random(f"{SEED}-{number}")
    target, at = TARGETS[number % 3], dice.randrange(1, STEPS - EVERY)
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
    # Before the first checkpoint there is nothing to resume: the run begins again, and ends the same.
    assert resumed or killed_at >= STEPS or killed_at <= EVERY, "nothing was resumed"
    ours = digests(run)
    assert ours.keys() == undisturbed.keys()
    assert not [key for key in ours if ours[key] != undisturbed[key]], f"seed {SEED}-{number}, killed at {killed_at}"
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps), "a resumed run left rows of a future that did not happen"
