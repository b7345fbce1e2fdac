"""A run that is hit again and again: kill -9 of a worker, of the driver, of everything, and a worker that is stopped (SIGSTOP) and so hangs
the others. Each hit is dealt `every` seconds after the one before, or a third of that after the run trained again, if that is later: no run
gets on that is hit before its first checkpoint each time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, open_store
from trainjobs.run.folder import Run

ROOT = Path(__file__).resolve().parents[2]
HITS = ("worker", "driver", "everything", "hang")
PAUSE, EVERY_STEPS, STALL = 0.1, 10, "5s"


def manifest(steps: int, pause: float, every_steps: int = EVERY_STEPS) -> dict[str, Any]:
    return {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "endurance"},
        "spec": {
            "custom": {"objective": "tests.faults.paced:build", "options": {"pause": pause}},
            "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1, "augment": ["horizontalFlip"]}},
            "training": {
                "steps": steps,
                "batch": {"global": 32},
                "optimizers": {"default": {"name": "adam", "learningRate": 1e-3}},
                "schedule": {"name": "cosine", "warmupSteps": 20},
                "ema": {"decay": 0.99},
            },
            "deepspeed": {"stage": 2},
            "compute": {"workers": 2, "gpusPerWorker": 0},
            "checkpoints": {"every": {"steps": every_steps}, "keep": {"last": 2}},
            "evaluation": {"everySteps": steps, "samples": 1},
            "recovery": {"maxRetries": 100, "stallTimeout": STALL},
        },
    }


@dataclass
class Hit:
    """`at`: when, in seconds since the epoch. `back`: when a step was made after it, by a worker that had resumed from the checkpoint; and
    that step."""

    kind: str
    at: float
    back: float = 0.0
    step: int = 0


@dataclass
class Endured:
    """`began`: when the first step was seen."""

    began: float = 0.0
    hits: list[Hit] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(hit.kind for hit in self.hits)
        return {kind: found[kind] for kind in HITS}


class Runner:
    """`gtj run` of a manifest, in a folder of its own."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.run = folder, Run(folder / "run")
        (folder / "job.yaml").write_text(json.dumps(job))
        self.steps = int(job["spec"]["training"]["steps"])
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "trainjobs.cli.main", "run", "-f", "job.yaml", "--run-dir", "run"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def made(self, since: float) -> tuple[float, int]:
        """(when, which) was the last step told of by a worker that began after `since`; (0, 0) when none has."""
        begun = [float(row["time"]) for row in self.run.attempts() if row.get("event") in ("started", "resumed")]
        if not begun or begun[-1] < since:
            return 0.0, 0
        try:
            row = json.loads((self.run.path / "metrics.jsonl").read_text().splitlines()[-1])
        except (OSError, ValueError, IndexError):
            return 0.0, 0
        return (float(row["time"]), int(row["step"])) if row["time"] > begun[-1] else (0.0, 0)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def finish(self, timeout: float) -> None:
        code = self.process.wait(timeout)
        assert code == 0, (self.folder / "output.log").read_text()[-3000:]

    def family(self) -> list[psutil.Process]:
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def hit(self, kind: str, dice: random.Random) -> bool:
        """Whether there was anything to hit."""
        everybody = self.family()
        if kind == "everything":
            chosen = everybody
        else:
            sign = "trainjobs.workers.launch" if kind == "driver" else "RayTrainWorker"
            found = [process for process in everybody if sign in " ".join(words(process)) and "raylet" not in words(process)[0]]
            chosen = found[:1] if kind == "driver" else dice.sample(found, min(1, len(found)))
        for process in chosen:
            try:
                process.send_signal(signal.SIGSTOP if kind == "hang" else signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        if kind == "everything":
            self.process.wait(60)
            self.process = self.start()
        return bool(chosen)

    def end(self) -> None:
        """Whatever is left of it."""
        for process in reversed(self.family() if not self.ended() else []):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


def endure(runner: Runner, seconds: float, every: float, dice: random.Random) -> Endured:
    """Deal hits for so many seconds from the first step on, each kind in turn in random order, and return when the run has ended."""
    endured, due = Endured(), 0.0
    kinds: list[str] = []
    while not runner.ended():
        now = time.time()
        if not endured.began:
            endured.began = runner.made(0.0)[0]
            due = endured.began + every
        last = endured.hits[-1] if endured.hits else None
        if last is not None and not last.back:
            last.back, last.step = runner.made(last.at)
            due = max(due, last.back + every / 3)
        if endured.began and due <= now < endured.began + seconds and (last is None or last.back):
            kinds = kinds or dice.sample(HITS, len(HITS))
            if runner.hit(kinds[-1], dice):
                endured.hits.append(Hit(kinds.pop(), time.time()))
                due = max(due + every, time.time())
        time.sleep(0.1)
    endured.hits = [hit for hit in endured.hits if hit.back]  # the last one may have met what was over
    return endured


def contents(run: Run) -> dict[str, str]:
    """The digests of all files of the last commit: weights, optimizer, averages, of every rank."""
    newest = Checkpoints(open_store(run.checkpoints_uri()), keep=Keep()).newest()
    assert newest is not None
    folder = run.path / "checkpoints" / newest.prefix
    found = {"step": str(newest.step)}
    for rank in range(newest.world):
        told = json.loads((folder / f"rank-{rank}.json").read_text())
        found |= {f"rank-{rank}/{file['name']}": file["digest"] for file in told["files"]}
    return found
