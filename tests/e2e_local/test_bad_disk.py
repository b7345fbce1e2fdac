"""Disks that are full and checkpoints that are damaged: said with a code, never with a loss of what was committed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from shell import Done, Shell, explained, refused, small_disk

pytestmark = pytest.mark.slow

# Fills the disk it is told, amid the training: from here on not even a line of log can be written.
FILLING = """
from pathlib import Path
from tests.e2e_local.mean import Mean

class Filling(Mean):
    def __init__(self, disk):
        super().__init__()
        self.disk = Path(disk)
    def loss(self, batch):
        self.calls += 1
        if self.calls == 5 and not (self.disk / "filler").exists():  # step 2 is committed; step 4 may be on its way
            with (self.disk / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        return super().loss(batch)

def build(spec, info):
    return Filling(spec.custom.options["disk"]).built()
"""


def commits(shell: Shell, name: str = "run") -> dict[tuple[int, int], str]:
    """The state of every commit, by step and attempt."""
    done = shell.gtj("checkpoints", "ls", name, "-o", "json")
    return {(row["step"], row["attempt"]): row["state"] for row in json.loads(done.stdout)}


def sh(shell: Shell, script: str) -> None:
    subprocess.run([*shell.within, "sh", "-ec", script], cwd=shell.path, check=True)


def fill(shell: Shell, left: int) -> None:
    """Leaves so many KiB on the disk."""
    sh(shell, f"free=$(df --output=avail disk | tail -1); head -c $(( (free - {left}) * 1024 )) /dev/zero > disk/filler")


def test_a_disk_that_fills_up_between_two_checkpoints(tmp_path: Path) -> None:
    """The run folder itself is on it: what is left suffices for progress and logs, not for a checkpoint of 35 KiB."""
    with small_disk(tmp_path, "8m") as shell:
        shell.manifest()
        command = ("run", "-f", "job.yaml", "--run-dir", "disk/run", "--no-ray")
        assert shell.gtj(*command, "--steps", 2).returncode == 0
        fill(shell, left=40)
        done = shell.gtj(*command)
        refused(done, "GTJ0211", 5, "a checkpoint cannot be written", "No space left on device", "logs/driver.log")
        assert "continuing disk/run from step 2" in done.stderr
        assert commits(shell, "disk/run") == {(2, 1): "live"}
        assert shell.gtj("checkpoints", "verify", "disk/run").returncode == 0
        assert "GTJ0211" in shell.gtj("status", "disk/run").stdout
        sh(shell, "rm disk/filler")
        goes_on(shell.gtj(*command))
        assert commits(shell, "disk/run")[2, 1] == "live"


def goes_on(done: Done, step: int = 2) -> None:
    assert done.returncode == 0, done.stderr
    assert f"from step {step}, " in done.stderr
    assert "step 6/6" in done.stdout


def test_a_disk_without_a_byte_left(tmp_path: Path) -> None:
    """The trainer cannot leave a word; the command knows all the same."""
    (tmp_path / "filling.py").write_text(FILLING)
    with small_disk(tmp_path, "8m") as shell:
        shell.manifest(vae=None, custom={"objective": "filling:build", "options": {"disk": str(tmp_path / "disk")}})
        command = ("run", "-f", "job.yaml", "--run-dir", "disk/run", "--no-ray")
        refused(
            shell.gtj(*command), "GTJ0211", 5, "cannot be written", "free disk space"
        )  # a checkpoint, or another file, whichever is first
        assert set(commits(shell, "disk/run").items()) in ({((2, 1), "live")}, {((2, 1), "live"), ((4, 1), "live")})
        assert shell.gtj("checkpoints", "verify", "disk/run").returncode == 0
        refused(shell.gtj(*command), "GTJ0114", 7, "No space left on device", "free some space")
        # An upload ends with its worker, amid a file perhaps: the next attempt takes away what it left, and nothing else leaves anything.
        assert all(path.startswith("disk/run/checkpoints/") for path in hidden(shell))
        saved = max(step for step, _ in commits(shell, "disk/run"))
        sh(shell, "echo > disk/filler; mkdir disk/run/checkpoints/steps/000000000005-a1")
        sh(shell, "echo > disk/run/checkpoints/steps/000000000005-a1/.tmp-half")
        goes_on(shell.gtj(*command), saved)
        assert not [path for path in hidden(shell) if "/steps/" in path]


def hidden(shell: Shell) -> list[str]:
    """Files of the run that no listing shows."""
    found = subprocess.run([*shell.within, "find", "disk/run", "-name", ".*"], capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


def test_a_full_disk_for_two_workers(tmp_path: Path) -> None:
    """One of them, or both, cannot store their part: both end, nothing is committed, and later both go on."""
    # A checkpoint of 700 KiB, and what the run's record holds by then, which is more on a slower machine: 50 to 200 KiB.
    with small_disk(tmp_path, "1000k") as shell:
        shell.manifest(
            vae={"network": {"architecture": "conv", "latentDim": 4, "channels": 48}},
            compute={"workers": 2, "gpusPerWorker": 0},
            deepspeed={"stage": 1},
            checkpoints={"uri": f"file://{tmp_path}/disk/runs", "every": {"steps": 2}, "keep": {"last": 3}},
        )
        command = ("run", "-f", "job.yaml", "--run-dir", "run")
        refused(shell.gtj(*command), "GTJ0211", 5, "a checkpoint cannot be written", "No space left on device", "logs/worker-")
        explained(shell.run, "GTJ0211")
        assert commits(shell) == {(2, 1): "live"}
        assert shell.gtj("checkpoints", "verify", "run").returncode == 0
        sh(shell, "mount -o remount,size=8m disk")
        goes_on(shell.gtj(*command))
        assert commits(shell) == {(2, 1): "live", (4, 2): "live", (6, 2): "live"}


def damage(path: Path) -> None:
    """One bit of its middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


NEWEST = "checkpoints/steps/000000000006-a1"


@pytest.mark.parametrize("file", ["rank-0/autoencoder.safetensors", "rank-0.json", "MANIFEST.json"])
def test_a_damaged_checkpoint_is_passed_over(trained: Shell, file: str) -> None:
    before = metrics(trained)
    damage(trained.run.path / NEWEST / file)
    verified = trained.gtj("checkpoints", "verify", "run")
    assert (verified.returncode, verified.stdout.count("whole")) == (5, 2)
    done = trained.train("--steps", 7)
    assert done.returncode == 0, done.stderr
    warning = f"warning: GTJ0209 checkpoint at step 6 is corrupt (steps/000000000006-a1/{file}): digest is "
    assert done.stderr.count("GTJ0209") == done.stderr.count(warning) == 1, done.stderr
    assert "the checkpoint before it is taken" in done.stderr
    assert [event["step"] for event in trained.run.attempts() if event["event"] == "resumed"] == [4]
    assert commits(trained)[6, 1] == "corrupt"
    assert metrics(trained)[6] == before[6]
    assert "GTJ0209 checkpoint at step 6" in (trained.run.path / "report.html").read_text()


def metrics(shell: Shell) -> dict[int, Any]:
    return {row["step"]: row["heldout/loss"] for row in shell.run.metrics() if "heldout/loss" in row}


def test_a_damaged_record_of_the_log_is_told(trained: Shell) -> None:
    log = sorted((trained.run.path / "checkpoints" / "log").iterdir())
    damage(log[-1])
    done = trained.train("--steps", 7)
    assert done.returncode == 0, done.stderr
    assert f"warning: GTJ0209 a newer checkpoint may be lost (log/{log[-1].name})" in done.stderr
    assert "The checkpoint of step 4 is taken" in done.stderr


@pytest.mark.parametrize("what", ["steps/*/MANIFEST.json", "log/*.json"])
def test_without_a_whole_checkpoint_nothing_begins_again_by_itself(trained: Shell, what: str) -> None:
    for path in (trained.run.path / "checkpoints").glob(what):
        damage(path)
    rows = (trained.run.path / "metrics.jsonl").read_bytes()
    for _ in range(2):  # a second try says the same
        refused(trained.train("--steps", 7), "GTJ0209", 5, "no checkpoint of this run is whole", "nothing was deleted", "gtj run --fresh")
        explained(trained.run, "GTJ0209")
    assert (trained.run.path / "metrics.jsonl").read_bytes() == rows
    assert len(list((trained.run.path / "checkpoints" / "steps").iterdir())) == 3
    if what.startswith("steps"):
        assert set(commits(trained).values()) == {"corrupt"}
        done = trained.train("--fresh")
        assert done.returncode == 0, done.stderr
        assert (trained.path / "run.1" / "metrics.jsonl").read_bytes() == rows
