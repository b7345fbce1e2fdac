"""How a driver hears that it is to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from trainjobs.run import preemption, progress
from trainjobs.run.outcome import Outcome, left
from trainjobs.workers.process import STOPPED, terminated


def test_before_the_first_step_the_driver_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    progress.update(tmp_path, phase="Starting")
    with pytest.raises(SystemExit) as raised:
        terminated(tmp_path)
    assert raised.value.code == STOPPED
    assert left(tmp_path) == Outcome("stopped", "before the first step")
    assert progress.read(tmp_path / "progress.json")["phase"] == "Stopped"
    assert preemption.pending(tmp_path) is None


def test_in_training_it_leaves_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(preemption.GRACE, raising=False)
    progress.update(tmp_path, phase="Running")
    terminated(tmp_path)
    assert preemption.pending(tmp_path) == preemption.Notice("stopped")


READING = """
import os, signal, sys
from pathlib import Path
from trainjobs.data import images

read, seen = images.read, []

def slow(data, size, channels, where):  # all was looked at beforehand; the driver asks for itself to end while it is read for training
    seen.append(where)
    if len(seen) == 40:
        os.kill(os.getpid(), signal.SIGTERM)
    assert len(seen) < 290, "everything was read"
    return read(data, size, channels, where)

from trainjobs.workers import launch
looked = launch.preflight
def preflight(job, run):
    looked(job, run)
    images.read = slow
launch.preflight = preflight
sys.argv = ["launch", sys.argv[1], "--no-ray"]
launch.leave(launch.main())
"""


@pytest.mark.slow
def test_a_signal_ends_the_reading_of_data(tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    run.mkdir()
    data.mkdir()
    for number in range(300):
        Image.linear_gradient("L").resize((64, 64)).save(data / f"{number}.png")
    job = {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "job"},
        "spec": {
            "vae": {},
            "data": {"source": f"file://{data}", "images": {"size": 8, "channels": 1}},
            "training": {"steps": 1},
            "compute": {"workers": 1, "gpusPerWorker": 0},
        },
    }
    (run / "job.json").write_text(json.dumps(job))
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    ended = subprocess.run(
        [sys.executable, "-c", READING, str(run)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == STOPPED, ended.stderr
    assert progress.read(run / "progress.json")["phase"] == "Stopped"
    assert not (run / "failure.json").exists()
    assert "Traceback" not in ended.stderr
    assert signal.Signals.SIGTERM.name not in ended.stderr
