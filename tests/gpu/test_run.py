"""`gtj run` on a machine with a GPU: every sample, every way to start it, and a model that does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e_local"))

from shell import ROOT, SPEC, Done, Shell, refused

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SAMPLES = sorted(path.stem for path in (ROOT / "manifests" / "samples").glob("*.yaml"))
GPU = {"workers": 1, "gpusPerWorker": 1}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "4")
    return shell


def trained(shell: Shell, done: Done) -> None:
    """The run in the folder `run` succeeded, on the GPU, and its checkpoint is whole."""
    assert done.returncode == 0, done.stdout + done.stderr
    progress = shell.run.progress()
    assert (progress["phase"], progress["device"]) == ("Succeeded", "cuda")
    assert 0 < progress["memoryBytes"] < torch.cuda.get_device_properties(0).total_memory
    assert shell.gtj("checkpoints", "verify", "run").returncode == 0


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_samples(sample: str, precision: str, shell: Shell) -> None:
    sets = [f"training.precision={precision}", "training.steps=30", "compute.gpusPerWorker=1", "evaluation.everySteps=15"]
    manifest = ROOT / "manifests" / "samples" / f"{sample}.yaml"
    flags = [flag for one in sets for flag in ("--set", one)]
    trained(shell, shell.gtj("run", "-f", manifest, "--workers", 1, "--no-ray", "--run-dir", "run", *flags))


def test_through_ray_and_on(shell: Shell) -> None:
    shell.manifest(compute=GPU)
    trained(shell, shell.gtj("run", "-f", "job.yaml", "--run-dir", "run"))
    trained(shell, shell.gtj("run", "-f", "job.yaml", "--run-dir", "run", "--steps", 12))
    events = [json.loads(line) for line in (shell.path / "run" / "attempts.jsonl").read_text().splitlines()]
    assert ("resumed", 6) in [(event["event"], event.get("step")) for event in events]


def test_under_torchrun(shell: Shell) -> None:
    shell.manifest(compute=GPU, training={**SPEC["training"], "precision": "bf16"}, deepspeed={"stage": 2})
    (shell.path / "run").mkdir()
    job = yaml.safe_load((shell.path / "job.yaml").read_text())
    (shell.path / "run" / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "trainjobs.workers.launch", "run"]
    done = subprocess.run(command, cwd=shell.path, env={**os.environ, **shell.environment}, capture_output=True, text=True, timeout=240)
    trained(shell, done)


def test_one_that_does_not_fit(shell: Shell) -> None:
    network = {"layers": 8, "hidden": 1024, "heads": 16, "contextLength": 4096}
    language = {"language": {"network": network}, "data": {"source": "builtin:stdlib-text"}}
    training = {"steps": 2, "batch": {"global": 1024}, "precision": "bf16"}
    shell.manifest(vae=None, **language, training=training, compute=GPU, recovery={"maxRetries": 0})
    refused(shell.train(), "GTJ0206", 5, "out of memory", "training.batch.micro")
