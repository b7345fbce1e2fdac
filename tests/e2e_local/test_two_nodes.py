"""The command of a RayJob on a real Ray cluster of two nodes that share nothing but a volume for checkpoints.

The second node runs in a mount namespace in which the run folders of the head are hidden, where namespaces are to be had.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import PATIENCE, Cluster, until
from prometheus_client.parser import text_string_to_metric_families

from gentrain_operator import report
from gentrain_operator.diagnose import diagnosed
from trainjobs.run.folder import Run
from trainjobs.run.progress import read
from trainjobs.run.recorded import fetch
from trainjobs.stores.open import open_store

pytestmark = pytest.mark.slow

# At its fourth step, one rank raises, or all wait for a file.
OBJECTIVE = """
import time
from pathlib import Path
import torch.distributed as dist
from tests.e2e_local.mean import Mean

class Objective(Mean):
    def __init__(self, options):
        super().__init__()
        self.options = options
    def loss(self, batch):
        self.calls += 1
        if self.calls == 4 and self.options.get("rank") == dist.get_rank():
            raise ValueError("my own mistake")
        while self.calls == 4 and "go" in self.options and not Path(self.options["go"]).exists():
            time.sleep(0.05)
        return super().loss(batch)

def build(spec, info):
    return Objective(spec.custom.options).built()
"""


class Attempt:
    """`python -m trainjobs.head` in a run folder of its own, as the head pod of an attempt has."""

    def __init__(self, cluster: Cluster, name: str, run: str, steps: int, options: dict[str, Any]) -> None:
        spec = {
            "custom": {"objective": "objective:build", "options": options},
            "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
            "training": {"steps": steps, "batch": {"global": 8}, "optimizers": {"default": {"name": "sgd", "learningRate": 1e-2}}},
            "compute": {"workers": 2, "gpusPerWorker": 0},
            "pod": {"volumes": [{"claimName": "checkpoints", "mountPath": str(cluster.volume)}]},
            "checkpoints": {"uri": f"file://{cluster.volume}/store", "every": {"steps": 1000}},
            "recovery": {"maxRetries": 0},
        }
        metadata = {"name": name, "namespace": "team-a"}
        job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": metadata, "spec": spec}
        self.run, self.steps = cluster.runs / run, steps
        manifest = cluster.head / f"{run}.json"
        manifest.write_text(json.dumps(job))
        self.output = cluster.head / f"{run}.log"
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainjobs.head", str(manifest), "--port", "0", "--run-dir", str(self.run)],
                env={**cluster.environment(cluster.head), "RAY_ADDRESS": cluster.address, "GENTRAIN_ATTEMPT": {"one": "1"}.get(run, "2")},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        served = until(lambda: re.search(r"on port (\d+)", self.output.read_text()), self.process, self.output)
        self.port = int(served.group(1))

    def reported(self) -> dict[str, Any]:
        """As the operator asks; {} when it gets no answer."""
        try:
            return report.fetch("127.0.0.1", self.port)
        except report.Unreadable:
            return {}

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def ends(self) -> tuple[int, str]:
        """Exit status and output."""
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(self.output.read_text())
        return self.process.returncode, self.output.read_text()

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in (self.run / "attempts.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="gtj-", dir="/tmp", ignore_cleanup_errors=True) as name:  # Ray's sockets need a short path
        cluster = Cluster(Path(name), OBJECTIVE)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def test_an_attempt_is_polled_and_stopped_and_the_next_one_goes_on(cluster: Cluster) -> None:
    go = cluster.volume / "go"
    with Attempt(cluster, "stopped", "one", 2000, {"go": str(go)}) as attempt:
        told = until(lambda: (found := attempt.reported()).get("step") and found, attempt.process, attempt.output)
        assert report.progress(told, 2000)["totalSteps"] == 2000
        assert (told["phase"], told["workers"], told["stage"]) == ("Running", 2, 0)
        page = urllib.request.urlopen(f"http://127.0.0.1:{attempt.port}/metrics", timeout=10).read().decode()
        values = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        assert [sample.value >= 1 for sample in values if sample.name == "gentrain_training_step"] == [True]
        labels = [sample.labels for sample in values if sample.name == "gentrain_training_metric"]
        assert {"namespace": "team-a", "job": "stopped", "name": "loss"} in labels
        attempt.process.terminate()
        until(lambda: (attempt.run / "stop").exists(), attempt.process, attempt.output)
        go.touch()
        status, output = attempt.ends()
    assert status == 130, output
    step, earlier = read(attempt.run / "progress.json")["checkpoint"]["step"], Run(attempt.run).metrics()
    assert 4 <= step < 2000
    verdict = diagnosed({"status": {"message": output}}, [], None)
    assert (verdict.code, verdict.class_, verdict.step) == ("GTJ0213", "Infrastructure", step)

    with Attempt(cluster, "stopped", "two", step + 3, {"go": str(go)}) as again:
        status, output = again.ends()
    assert status == 0, output
    # Which checkpoints and evaluations fall due on the three steps depends on where the first attempt was stopped.
    told = {"checkpoint", "note", "changed"}  # the second attempt has other steps
    assert [event for event in dict.fromkeys(again.events()) if event not in told] == ["resumed", "evaluated", "succeeded"]
    assert again.events()[-2] == "checkpoint"
    rows = [json.loads(line)["step"] for line in (again.run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1] == step + 3
    assert (again.run / "samples" / f"step-{step + 3:06d}.txt").read_text().strip()
    assert list((again.run / "events").iterdir())

    # Both pods are gone: what they knew is in the store, put together, and as it was there.
    kept = Run(fetch(open_store(f"file://{cluster.volume}/store/stopped"), cluster.volume / "kept"))
    assert (kept.phase(), kept.progress()["step"]) == ("Succeeded", step + 3)
    assert [row["step"] for row in kept.metrics()][-1] == step + 3
    assert kept.metrics()[: len(earlier)] == [row for row in earlier if row["step"] < kept.metrics()[len(earlier)]["step"]]
    assert [event["event"] for event in kept.attempts()] == [*attempt.events(), *again.events()]
    assert (kept.path / "report.html").stat().st_size > 10_000
    assert "rank 1 of 2" in kept.driver_log.read_text()


def test_the_rank_that_raised_is_named(cluster: Cluster) -> None:
    with Attempt(cluster, "raising", "three", 2000, {"rank": 1}) as attempt:
        status, output = attempt.ends()
    assert status == 5, output
    last = output.splitlines()[-1]
    assert last.startswith("gentrain-failure: {")
    verdict = diagnosed({"status": {"message": output[-20_000:]}}, [], None)
    assert (verdict.code, verdict.class_, verdict.rank) == ("GTJ0214", "Application", 1), output
    assert verdict.summary == "ValueError: my own mistake"
    assert verdict.log_tail is not None
    assert 'raise ValueError("my own mistake")' in verdict.log_tail
    assert attempt.events() == ["started", "failed"], "no group was started again"
