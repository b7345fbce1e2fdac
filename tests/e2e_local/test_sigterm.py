"""SIGTERM to a trainer that knows how long it has: a checkpoint of the last step, or none at all when it would not be finished."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from nodes import until
from shell import SPEC, Shell

from trainjobs.run.progress import read

pytestmark = pytest.mark.slow

SLOW = """
import time
from tests.e2e_local.mean import Mean

class Slow(Mean):
    def loss(self, batch):
        time.sleep(0.02)
        return super().loss(batch)

def build(spec, info):
    return Slow().built()
"""


@pytest.mark.parametrize(("grace", "taken"), [("60", True), ("0", False), (None, True)])
def test_sigterm(grace: str | None, taken: bool, shell: Shell) -> None:
    (shell.path / "slow.py").write_text(SLOW)
    spec = {name: SPEC[name] for name in ("data", "compute")} | {
        "custom": {"objective": "slow:build"},
        "checkpoints": {"every": {"steps": 50}},
    }
    spec["training"] = {**SPEC["training"], "steps": 100_000}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "job"}, "spec": spec}
    run, output = shell.run.path, shell.path / "output.log"
    run.mkdir()
    (run / "job.json").write_text(json.dumps(job))
    environment = shell.environment | ({"GENTRAIN_GRACE_SECONDS": grace} if grace else {})
    process = started(run, output, environment)
    told = until(lambda: (found := read(run / "progress.json")).get("checkpoint") and found, process, output)
    before = told["checkpoint"]["step"]
    if grace is not None:
        assert told["checkpoint"]["fitsGrace"] is taken
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 130, output.read_text()
    last = read(run / "progress.json")
    assert last["phase"] == "Stopped"
    assert last["checkpoint"]["step"] == (last["step"] if taken else last["step"] // 50 * 50)
    assert last["checkpoint"]["step"] >= before
    assert last["step"] < 100_000
    expected = {"60": " s are left: taken", "0": " s are left: not taken, the one before is kept", None: ""}[grace]
    assert expected in last["message"]


@pytest.mark.parametrize("ray", [False, True])
def test_ctrl_c_to_a_driver_that_was_started_by_hand(ray: bool, shell: Shell) -> None:
    """It takes a checkpoint and leaves no traceback, neither of ours nor of Ray's."""
    (shell.path / "slow.py").write_text(SLOW)
    spec = {name: SPEC[name] for name in ("data", "compute")} | {"custom": {"objective": "slow:build"}}
    spec["training"] = {**SPEC["training"], "steps": 100_000}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "job"}, "spec": spec}
    run, output = shell.run.path, shell.path / "output.log"
    run.mkdir()
    (run / "job.json").write_text(json.dumps(job))
    process = started(run, output, shell.environment, ray=ray)
    until(lambda: read(run / "progress.json").get("step"), process, output)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130, output.read_text()
    last = read(run / "progress.json")
    assert (last["phase"], last["checkpoint"]["step"]) == ("Stopped", last["step"])
    said = output.read_text() + "".join(path.read_text() for path in (run / "logs").glob("*.log"))
    assert "Traceback" not in said, said
    assert f"stopped at step {last['step']}" in said


def started(run: Path, output: Path, environment: dict[str, str], *, ray: bool = False) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainjobs.workers.launch", str(run), *([] if ray else ["--no-ray"])]
    with output.open("wb") as log:
        return subprocess.Popen(command, cwd=run.parent, env=environment, stdout=log, stderr=subprocess.STDOUT)
