"""Machines that go and come, on a real Ray cluster: no step is made twice where there was notice, and the curve is that of a quiet run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import PATIENCE, Cluster, kill, until
from shell import Shell

from trainjobs.plan.room import TRIES
from trainjobs.run import preemption
from trainjobs.run.progress import read

pytestmark = pytest.mark.slow

# Every step takes a while, in which something can happen, and leaves a mark. A group of some size makes ten steps until it may go on.
OBJECTIVE = """
import os, time
from pathlib import Path
import torch.distributed as dist
from tests.e2e_local.mean import Mean

class Marking(Mean):
    def __init__(self, options):
        super().__init__()
        self.pace, self.marks = options["pace"], Path(options["marks"]) / str(os.getpid())
        self.waits = options["waits"] == dist.get_world_size()
        self.go = Path(options["marks"] + "-go")
    def loss(self, batch):
        self.calls += 1
        time.sleep(self.pace)
        while self.waits and self.calls > 20 / dist.get_world_size() and not self.go.exists():
            time.sleep(0.05)
        with self.marks.open("a") as file:
            file.write("x" * batch.size)
        return super().loss(batch)

def build(spec, info):
    return Marking(spec.custom.options).built()
"""
GLOBAL = 8


class Driver:
    """`python -m trainjobs.workers.launch` of a job on the cluster; every step is a row of metrics."""

    def __init__(self, cluster: Cluster, name: str, workers: int | str, steps: int, waits: int, **environment: str) -> None:
        """A group of `waits` workers waits at its eleventh step for `go`."""
        self.run, self.marks, self.steps = cluster.runs / name, cluster.volume / f"{name}-marks", steps
        for path in (self.run, self.marks):
            path.mkdir()
        spec = {
            "custom": {
                "objective": "objective:build",
                "options": {"pace": 0.1 if waits else 0.0, "marks": str(self.marks), "waits": waits},
            },
            "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
            "training": {
                "steps": steps,
                "batch": {"global": GLOBAL},
                "optimizers": {"default": {"name": "adam", "learningRate": 1e-2}},
                "ema": {"decay": 0.9},
            },
            "deepspeed": {"stage": 1},
            "compute": {"workers": workers, "gpusPerWorker": 0},
            "checkpoints": {"uri": f"file://{cluster.volume}/store", "every": {"steps": 5}},
        }
        job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": name}, "spec": spec}
        (self.run / "job.json").write_text(json.dumps(job))
        self.output = cluster.head / f"{name}.log"
        ours = {**cluster.environment(cluster.head), "RAY_ADDRESS": cluster.address, **environment}
        with self.output.open("wb") as log:
            command = [sys.executable, "-m", "trainjobs.workers.launch", str(self.run), "--sync-every", "1"]
            self.process = subprocess.Popen(command, env=ours, cwd=cluster.head, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def progress(self, name: str) -> Any:
        return read(self.run / "progress.json").get(name)

    def until_step(self, step: int, workers: int) -> None:
        until(lambda: self.progress("step") and self.progress("step") >= step and self.progress("workers") == workers, *self._alive)

    def noticed(self) -> None:
        """The group is about to hear that it is to be replaced. It may go on, and does not end before it has heard."""
        until((self.run / preemption.REPLACE).exists, *self._alive)
        Path(f"{self.marks}-go").touch()

    def event(self, kind: str, number: int = 0) -> dict[str, Any]:
        """Waits for the event of that kind, or for a later one of them."""
        found: list[dict[str, Any]] = until(lambda: len(found := self.events(kind)) > number and found, *self._alive)
        return found[number]

    @property
    def _alive(self) -> tuple[subprocess.Popen[bytes], Path]:
        return self.process, self.output

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        path = self.run / "attempts.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] in kinds]

    def ends(self) -> None:
        assert self.process.wait(timeout=PATIENCE) == 0, self.output.read_text()

    def losses(self) -> dict[int, float]:
        rows = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        return {row["step"]: row["loss"] for row in rows if "loss" in row}

    def samples(self) -> int:
        """Samples that losses were computed of, in all processes together."""
        return sum(path.stat().st_size for path in self.marks.iterdir())


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    # A dead node is found after five seconds, and a node that is drained may take a minute.
    quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_initial_delay_ms": "2000"}
    with tempfile.TemporaryDirectory(prefix="gtj-", dir="/tmp", ignore_cleanup_errors=True) as name:  # Ray's sockets need a short path
        cluster = Cluster(Path(name), OBJECTIVE, RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="60", **quick)
        try:
            yield cluster
        finally:
            cluster.stop()


def test_a_node_that_is_drained_costs_no_step(cluster: Cluster) -> None:
    cluster.start()
    node = cluster.worker
    with Driver(cluster, "drained", 2, steps=60, waits=2) as driver:
        driver.event("checkpoint")  # and its time is known
        node.send_signal(signal.SIGTERM)  # as the kubelet does, when a pod is to go
        driver.noticed()
        left = driver.event("reclaimed")
        cluster.add("another")
        driver.ends()
    assert left["message"].startswith("the node of rank ")
    assert "is taken away: a checkpoint of " in left["message"]
    assert left["message"].endswith(" s are left: taken")
    (resumed,) = driver.events("resumed")
    assert left["step"] == resumed["step"]
    assert left["step"] in [event["step"] for event in driver.events("checkpoint")]
    assert not driver.events("worker-lost")
    assert driver.progress("restarts") == 1
    assert driver.samples() == 60 * GLOBAL, "a step was made twice"
    assert sorted(driver.losses()) == list(range(1, 61))


def test_an_elastic_group_shrinks_and_grows_and_trains_the_same(cluster: Cluster) -> None:
    cluster.start()
    with Driver(cluster, "quiet", 1, steps=80, waits=0) as quiet:
        quiet.ends()
    with Driver(cluster, "elastic", "1-2", steps=80, waits=1, GENTRAIN_RESIZE_SECONDS="2") as driver:
        saved = driver.event("checkpoint")["step"]
        assert driver.progress("workers") == 2
        kill(cluster.worker)
        driver.until_step(saved + 3, 1)
        cluster.add("another")
        driver.noticed()
        grown = driver.event("resized")
        driver.until_step(grown["step"] + 1, 2)
        driver.ends()
    assert grown["message"].startswith("there is room for 2 workers instead of 1: ")
    lost, *again = [event["event"] for event in driver.events("worker-lost", "resized", "resumed")]
    assert (lost, again) == ("worker-lost", ["resumed", "resized", "resumed"])
    first, second = [event["step"] for event in driver.events("resumed")]
    assert (first >= saved, second) == (True, grown["step"])
    losses, expected = driver.losses(), quiet.losses()
    assert sorted(losses) == list(range(1, 81))
    assert losses == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert losses[80] < 0.5 * losses[1]


# A second worker that this machine cannot bear: it is killed at its first step, as by the kernel for want of memory.
GREEDY = """
import os, signal
import torch.distributed as dist
from tests.e2e_local.mean import Mean

class Greedy(Mean):
    def loss(self, batch):
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(batch)

def build(spec, info):
    return Greedy().built()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a group of two is to fail, and there is one core")
def test_on_one_machine_a_size_that_never_works_is_given_up(shell: Shell) -> None:
    (shell.path / "greedy.py").write_text(GREEDY)
    compute = {"workers": "1-2", "gpusPerWorker": 0}
    shell.manifest(vae=None, custom={"objective": "greedy:build"}, compute=compute)
    done = shell.gtj("run", "-f", "job.yaml", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert "training in run, 1 to 2 workers" in done.stderr
    groups = [event["message"] for event in shell.run.attempts() if event["event"] == "started"]
    assert [message.split(" on ")[0] for message in groups] == ["2 workers"] * (TRIES + 1) + ["1 worker"]
    assert shell.run.progress()["workers"] == 1
