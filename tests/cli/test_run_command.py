"""`gtj run` from outside: processes, signals, a terminal. The trainer is a script that writes what a trainer writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

from trainjobs.api.job import Job
from trainjobs.cli.driver import Signals
from trainjobs.plan.forecast import ANNOTATION, Forecast, read, text
from trainjobs.run.folder import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
GTJ = str(Path(__file__).with_name("gtj_with_fake_driver.py"))
MANIFEST = """\
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {name: faces}
spec:
  gan: {}
  data: {source: builtin:digits, images: {size: 16, channels: 1}}
  training: {steps: 40, batch: {global: 64}}
  compute: {workers: 1, gpusPerWorker: 0}
"""


class Shell:
    """A folder with a manifest in it, and the command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        (path / "job.yaml").write_text(MANIFEST)
        self.run = Run(path / "gentrain-runs" / "faces")

    def gtj(self, *arguments: str, fake: str = "train", stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, GTJ, *arguments],
            cwd=self.path, env={**self.environment, "GTJ_FAKE": fake}, input=stdin, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def terminal(self, *arguments: str, fake: str = "train", pace: float = 0.05, columns: int = 80) -> Any:
        environment = {
            **self.environment,
            "GTJ_FAKE": fake,
            "GTJ_FAKE_PACE": str(pace),
            "TERM": "xterm-256color",
            "PYTHONIOENCODING": "utf-8",
        }
        return pexpect.spawn(
            sys.executable, [GTJ, *arguments], cwd=str(self.path), env=environment, dimensions=(24, columns), encoding="utf-8", timeout=30
        )


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_notes_on_the_manifest_are_told_first_and_nothing_is_refused(shell: Shell) -> None:
    done = shell.gtj("run", "-f", "job.yaml", "--set", "training.schedule.warmupSteps=50")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("--set training.schedule.warmupSteps=50: GTJ0123: note: the warm-up of 50 steps")
    assert "note" not in shell.gtj("run", "-f", "job.yaml", "--fresh").stderr


def test_a_run_from_nothing_to_its_report(shell: Shell) -> None:
    done = shell.gtj("run", "-f", "job.yaml")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Succeeded  faces: step 40/40, 2560 samples", done.stdout)
    assert re.search(r"^  loss/D +0.025$", done.stdout, re.M)
    for name in ("report", "samples", "checkpoints"):
        assert re.search(rf"^  {name} +\S*gentrain-runs/faces", done.stdout, re.M), done.stdout
    assert (shell.run.path / "report.html").is_file()
    assert (shell.run.path / "job.yaml").read_text() == MANIFEST
    assert "fake driver here" in shell.run.driver_log.read_text()
    assert not shell.run.in_use()


def test_overrides_reach_the_trainer(shell: Shell) -> None:
    (shell.path / "gentrain-runs").mkdir()
    spec = Job.model_validate(yaml.safe_load(MANIFEST)).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    planned = text([Forecast("this machine", 1, 0, 64, 2**30, (0.1, 0.2), (1.0, 2.0))])
    (shell.path / "gentrain-runs" / "faces.plan.json").write_text(json.dumps({"spec": spec, "plan": planned}))
    done = shell.gtj("run", "-f", "-", "--steps", "10", "--set", "training.seed=7", "--run-dir", "here", "-o", "json", stdin=MANIFEST)
    assert done.returncode == 0, done.stderr
    spec = Run(shell.path / "here").spec()
    assert (spec["training"]["steps"], spec["training"]["seed"], spec["compute"]["workers"]) == (10, 7, 1)
    outcome = json.loads(done.stdout)
    assert (outcome["phase"], outcome["step"], outcome["metrics"]["loss/D"]) == ("Succeeded", 10, 0.1)
    (way,) = read(Run(shell.path / "here").job()["metadata"]["annotations"][ANNOTATION])
    assert (way.seconds, way.usd) == ((0.1, 0.2), None), "what was planned, without the cost of other steps"


def test_fields_of_a_cluster_are_named_as_ignored(shell: Shell) -> None:
    (shell.path / "job.yaml").write_text(
        MANIFEST + '  budget: {maxUSD: "5"}\n  pod: {image: mine}\n  recovery: {maxRetries: 1, stallTimeout: 5m}\n'
    )
    done = shell.gtj("run", "-f", "job.yaml")
    assert "ignored here: spec.pod, spec.budget (used on a cluster)\n" in done.stderr


def test_a_failure_is_explained_without_a_traceback(shell: Shell) -> None:
    done = shell.gtj("run", "-f", "job.yaml", fake="fail")
    assert done.returncode == 5
    for line in ("GTJ0207 the loss of D is NaN", "where: step 20", "why:   it grew", "how:   lower the learning rate", "logs/driver.log"):
        assert line in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "GTJ0207" in (shell.run.path / "report.html").read_text()
    status = shell.gtj("status", "faces")
    assert "Failed" in status.stdout
    assert "lower the learning rate" in status.stdout


def test_a_driver_that_cannot_start_is_quoted(shell: Shell) -> None:
    done = shell.gtj("run", "-f", "job.yaml", fake="crash")
    assert done.returncode == 5
    assert "ImportError: this machine has no torch" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_driver_goes_on(shell: Shell) -> None:
    done = shell.gtj("run", "-f", "job.yaml", fake="killed-once")
    assert done.returncode == 0, done.stderr
    assert "the trainer was killed by SIGKILL; starting it again from step 20 in 1s (restart 1)" in done.stderr
    assert [event["event"] for event in shell.run.attempts()] == [
        "started",
        "checkpoint",
        "worker-lost",
        "resumed",
        "checkpoint",
        "succeeded",
    ]


def test_invalid_manifests_and_missing_files_start_nothing(shell: Shell) -> None:
    (shell.path / "bad.yaml").write_text(MANIFEST.replace("steps: 40", "stpes: 40"))
    bad = shell.gtj("run", "-f", "bad.yaml")
    assert bad.returncode == 3
    assert "bad.yaml:7:" in bad.stderr
    assert 'did you mean "steps"?' in bad.stderr
    assert shell.gtj("run", "-f", "none.yaml").returncode == 7
    assert shell.gtj("run").returncode == 2
    assert shell.gtj("run", "-f", "job.yaml", "--workers", "4096", "--set", "training.batch.global=4096").returncode == 4
    assert not shell.run.exists


def test_another_manifest_does_not_overwrite(shell: Shell) -> None:
    assert shell.gtj("run", "-f", "job.yaml").returncode == 0
    other = shell.gtj("run", "-f", "job.yaml", "--set", "training.seed=1")
    assert other.returncode == 2
    assert "training.seed was 0, is 1" in other.stderr
    assert shell.gtj("run", "-f", "job.yaml", "--set", "training.seed=1", "--fresh").returncode == 0
    assert Run(shell.run.path.with_name("faces.1")).spec()["training"]["seed"] == 0


def test_the_live_line_fits_eighty_columns(shell: Shell) -> None:
    terminal = shell.terminal("run", "-f", "job.yaml")
    terminal.expect("starting workers")
    terminal.expect("Succeeded  faces")
    seen = terminal.before
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    # What the terminal was told, line by line as it was drawn; control sequences take no room.
    drawn = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part) for part in re.split(r"[\r\n]+", seen)]
    assert max(map(len, drawn)) < 80
    assert any("loss D" in line and "ETA" in line and "samples/s" in line for line in drawn)


def test_ctrl_c_saves_says_how_to_resume_and_resuming_works(shell: Shell) -> None:
    terminal = shell.terminal("run", "-f", "job.yaml", "--steps", "200")
    terminal.expect("loss D")
    terminal.sendintr()
    terminal.expect(re.escape("stopping: saving a checkpoint (Ctrl-C again to stop at once)"))
    terminal.expect("Stopped  faces")
    terminal.expect(r"resume with: (gtj run -f job.yaml --steps 200)\r\n")
    again = terminal.match[1]
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    stopped_at = shell.run.progress()["step"]
    done = shell.gtj(*again.split()[1:])
    assert done.returncode == 0, done.stderr
    assert f"from step {stopped_at}" in done.stderr
    assert [row["step"] for row in shell.run.metrics()] == list(range(1, 201))


def test_a_second_ctrl_c_ends_at_once_and_is_seen_as_interrupted(shell: Shell) -> None:
    terminal = shell.terminal("run", "-f", "job.yaml", "--steps", "2000", fake="slow")
    terminal.expect("loss D")
    terminal.sendintr()
    terminal.expect("stopping: saving")
    terminal.sendintr()
    terminal.expect("stopping at once")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert not shell.run.in_use()
    assert "Interrupted" in shell.gtj("ls").stdout


def test_a_polite_kill_is_a_ctrl_c_and_a_second_run_is_refused_meanwhile(shell: Shell) -> None:
    terminal = shell.terminal("run", "-f", "job.yaml", "--steps", "2000")
    terminal.expect("loss D")
    second = shell.gtj("run", "-f", "job.yaml", "--steps", "2000")
    assert second.returncode == 2
    assert "GTJ0117" in second.stderr
    terminal.kill(signal.SIGTERM)
    terminal.expect("Stopped  faces")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130


def test_under_nohup_a_closing_terminal_is_no_wish_to_stop() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.count == 0
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.count == 1
    finally:
        signal.signal(signal.SIGHUP, former)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, trainjobs.cli.run, trainjobs.cli.main; print(*{name.split('.')[0] for name in sys.modules})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "deepspeed", "numpy", "rich", "jinja2", "transformers", "PIL"} & set(answer.stdout.split())
