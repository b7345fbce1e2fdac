"""A store that takes nothing for a while: training goes on, says so (GTJ0211), and saves again when it can."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from shell import Shell, refused, small_disk

pytestmark = pytest.mark.slow

# Fills the disk that checkpoints go to once step 40 is committed, and clears it when the trainer has said that it could not save.
FILLING = """
import json
from pathlib import Path
import trainjobs.checkpointer.saver
from tests.e2e_local.mean import Mean

trainjobs.checkpointer.saver.AGAIN = 0.5

class Filling(Mean):
    def __init__(self, disk, run, mend):
        super().__init__()
        self.filler, self.run, self.mend = Path(disk) / "filler", Path(run), mend
    def loss(self, batch):
        self.calls += 1
        told = json.loads((self.run / "progress.json").read_text())
        saved = (told.get("checkpoint") or {}).get("step", 0)
        if saved >= 40 and not (self.run / "filled").exists():
            (self.run / "filled").touch()
            with self.filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        if told.get("checkpointFailure") and self.mend and self.filler.exists():
            (self.run / "seen.json").write_text(json.dumps(told))
            self.filler.unlink()
        return super().loss(batch)

def build(spec, info):
    return Filling(spec.custom.options["disk"], spec.custom.options["run"], spec.custom.options["mend"]).built()
"""


def submitted(shell: Shell, folder: Path, *, steps: int, mend: bool) -> None:
    """The manifest of a job whose disk fills."""
    (folder / "filling.py").write_text(FILLING)
    options = {"disk": str(folder / "disk"), "run": str(folder / "run"), "mend": mend}
    shell.manifest(
        vae=None,
        custom={"objective": "filling:build", "options": options},
        checkpoints={"uri": f"file://{folder}/disk/runs", "every": {"steps": 40}, "keep": {"last": 2}},
        training={"steps": steps, "batch": {"global": 8}},
        evaluation={"everySteps": steps, "samples": 1},
    )


def test_training_goes_on_and_saves_when_it_can(tmp_path: Path) -> None:
    with small_disk(tmp_path, "2m") as shell:
        submitted(shell, tmp_path, steps=4000, mend=True)
        done = shell.gtj("run", "-f", "job.yaml", "--run-dir", "run", "--no-ray")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("warning: GTJ0211 a checkpoint cannot be written") == 1, done.stderr
        seen = json.loads((tmp_path / "run" / "seen.json").read_text())
        assert "No space left on device" in seen["checkpointFailure"]
        assert seen["checkpoint"]["step"] >= 40, "the last good one is still named"
        ended = json.loads((tmp_path / "run" / "progress.json").read_text())
        assert ended["checkpointFailure"] is None
        assert ended["checkpoint"]["step"] == 4000
        events = [json.loads(line) for line in (tmp_path / "run" / "attempts.jsonl").read_text().splitlines()]
        (failed,) = [event for event in events if event["event"] == "warning"]
        after = [event["step"] for event in events if event["event"] == "checkpoint" and event["time"] > failed["time"]]
        assert after[0] < 4000, "it did not wait for the end"
        assert shell.gtj("checkpoints", "verify", "run").returncode == 0


def test_a_run_that_cannot_save_its_end_fails(tmp_path: Path) -> None:
    with small_disk(tmp_path, "2m") as shell:
        submitted(shell, tmp_path, steps=400, mend=False)
        command = ("run", "-f", "job.yaml", "--run-dir", "run", "--no-ray")
        refused(shell.gtj(*command), "GTJ0211", 5, "a checkpoint cannot be written", "No space left on device")
        assert "GTJ0211" in shell.gtj("status", "run").stdout
        subprocess.run([*shell.within, "rm", "disk/filler"], cwd=tmp_path, check=True)
        done = shell.gtj(*command)
        assert done.returncode == 0, done.stderr
        assert "continuing run from step" in done.stderr
