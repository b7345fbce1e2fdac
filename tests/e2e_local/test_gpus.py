"""Workers of two GPUs on a real Ray cluster of two nodes that say they have them. torch finds none, and no attempt trains without."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from nodes import PATIENCE, Cluster
from shell import SPEC

pytestmark = [pytest.mark.slow, pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, which the nodes would share")]


def test_a_process_for_each_gpu_and_none_trains_without() -> None:
    with tempfile.TemporaryDirectory(prefix="gtj-", dir="/tmp", ignore_cleanup_errors=True) as name:  # Ray's sockets need a short path
        cluster = Cluster(Path(name), "", each=("--num-cpus=2", "--num-gpus=2"))
        try:
            cluster.start()
            status, output, run = attempted(cluster)
        finally:
            cluster.stop()
        accounts = [json.loads(path.read_text()) for path in (run / "failures").glob("*.json")]
    assert status == 4, output
    assert "GTJ0121" in output
    assert "sees none" in output
    places = {account["rank"]: re.findall(r"local rank (\d)", account["why"]) for account in accounts}
    # Ray tells machines apart by their address, and the nodes here share one: four processes on it, two for each node's two GPUs.
    assert places == {rank: [str(rank)] for rank in range(4)}


def attempted(cluster: Cluster) -> tuple[int, str, Path]:
    """Exit status, output and run folder of a job of two workers of two GPUs."""
    parts = {
        "compute": {"workers": 2, "gpusPerWorker": 2},
        "pod": {"volumes": [{"claimName": "checkpoints", "mountPath": str(cluster.volume)}]},
        "checkpoints": {"uri": f"file://{cluster.volume}/store"},
    }
    metadata = {"name": "gpus", "namespace": "team-a"}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": metadata, "spec": SPEC | parts}
    manifest, run = cluster.head / "gpus.json", cluster.runs / "gpus"
    manifest.write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, "-m", "trainjobs.head", str(manifest), "--port", "0", "--run-dir", str(run)],
        env={**cluster.environment(cluster.head), "RAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout + done.stderr, run
