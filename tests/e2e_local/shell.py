"""What a user has: a folder with a manifest in it, and the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainjobs.run.folder import Run

ROOT = Path(__file__).resolve().parents[2]
# Six steps of two seconds' start: a checkpoint of 35 KiB at steps 2, 4 and 6.
SPEC: dict[str, Any] = {
    "vae": {"network": {"architecture": "conv", "latentDim": 4, "channels": 8}},
    "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
    "training": {"steps": 6, "batch": {"global": 8}, "optimizers": {"default": {"name": "sgd", "learningRate": 1e-2}}},
    "compute": {"workers": 1, "gpusPerWorker": 0},
    "checkpoints": {"every": {"steps": 2}, "keep": {"last": 3}},
    "evaluation": {"everySteps": 6, "samples": 4},
}
Done = subprocess.CompletedProcess[str]


class Shell:
    """`within` is put before every command: nsenter, into the namespaces that have the small disk."""

    def __init__(self, path: Path, within: Sequence[str] = ()) -> None:
        self.path, self.within = path, list(within)
        self.environment = {
            **os.environ,
            "PYTHONPATH": ":".join(filter(None, (str(ROOT), str(path), os.environ.get("PYTHONPATH")))),
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
        }

    def manifest(self, name: str = "job.yaml", **parts: Any) -> None:
        """Writes job.yaml: SPEC with whole parts replaced, or taken out where they are None."""
        spec = {part: value for part, value in {**SPEC, **parts}.items() if value is not None}
        job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "job"}, "spec": spec}
        (self.path / name).write_text(yaml.safe_dump(job, sort_keys=False))

    def gtj(self, *arguments: object, timeout: float = 240) -> Done:
        command = [*self.within, sys.executable, "-m", "trainjobs.cli.main", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def train(self, *arguments: object) -> Done:
        """`gtj run` of job.yaml into the folder `run`, in one process."""
        return self.gtj("run", "-f", "job.yaml", "--run-dir", "run", "--no-ray", *arguments)

    @property
    def run(self) -> Run:
        return Run(self.path / "run")


def refused(done: Done, code: str, status: int, *phrases: str) -> None:
    """The command ended with `status` and said `code` once, with every one of the phrases; nothing was said on stdout."""
    assert done.returncode == status, done.stderr
    assert [line for line in done.stderr.splitlines() if code in line and "warning" not in line], done.stderr
    assert done.stderr.count("GTJ0") - done.stderr.count("warning: GTJ0") == 1, done.stderr
    for phrase in phrases:
        assert phrase in done.stderr, done.stderr
    assert done.stdout == ""


def explained(run: Run, code: str) -> None:
    """A run that failed tells so afterwards, too."""
    failure = run.failure()
    assert failure is not None
    assert failure["code"] == code
    assert run.progress()["phase"] == "Failed"
    assert code in (run.path / "report.html").read_text()
    assert not run.in_use()


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Shell]:
    """A tmpfs of its own on path/disk, in namespaces that need no root and go with the test; commands of the shell see it."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("no namespaces here, so no small disk")
    disk = path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size={size} tmpfs '{disk}' && echo mounted && exec cat"
    keeper = subprocess.Popen(["unshare", "-Urm", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        if keeper.stdout.readline() != "mounted\n":
            pytest.skip("no namespaces for users here, so no small disk")
        yield Shell(path, ["nsenter", "--preserve-credentials", "-U", "-m", "-t", str(keeper.pid), "--", "env", "-C", str(path)])
    finally:
        keeper.stdin.close()
        keeper.wait()
