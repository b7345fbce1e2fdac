"""A worker that hangs: found by its own watchdog, named, and replaced."""

from __future__ import annotations

from typing import Any

import pytest
from shell import SPEC, Done, Shell, refused

pytestmark = pytest.mark.slow

HANGING = """
import time
from pathlib import Path
import torch.distributed as dist
from tests.e2e_local.mean import Mean

class Hanging(Mean):
    def __init__(self, once):
        super().__init__()
        self.once = once and Path(once)
    def loss(self, batch):
        self.calls += 1
        if self.calls == 4 and dist.get_rank() == 1 and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            time.sleep(10_000)
        return super().loss(batch)

def build(spec, info):
    return Hanging(spec.custom.options.get("once")).built()
"""


def hanging(shell: Shell, recovery: dict[str, Any], **options: str) -> None:
    (shell.path / "hanging.py").write_text(HANGING)
    compute = {**SPEC.get("compute", {}), "workers": 2}
    shell.manifest(vae=None, custom={"objective": "hanging:build", "options": options}, recovery=recovery, compute=compute)


def on_ray(shell: Shell) -> Done:
    return shell.gtj("run", "-f", "job.yaml", "--run-dir", "run")


def test_a_worker_that_hangs_for_good(shell: Shell) -> None:
    hanging(shell, {"maxRetries": 0, "stallTimeout": "10s"})
    refused(on_ray(shell), "GTJ0210", 5, "no step for 1", "after step 3", "hanging.py:", "in loss", "stacks-1.txt", "recovery.stallTimeout")
    assert "hanging.py" in (shell.run.path / "logs" / "stacks-1.txt").read_text()
    waiting = shell.run.path / "logs" / "stacks-0.txt"  # its worker may have been ended before it could write
    assert not waiting.exists() or "all_reduce" in waiting.read_text()


def test_a_worker_that_hangs_once_costs_a_restart(shell: Shell) -> None:
    hanging(shell, {"maxRetries": 1, "stallTimeout": "10s"}, once=str(shell.path / "hung"))
    done = on_ray(shell)
    assert done.returncode == 0, done.stderr
    (lost,) = [event for event in shell.run.attempts() if event["event"] == "worker-lost"]
    assert lost["message"].startswith("no step for 1")
    assert shell.run.progress()["restarts"] == 1
