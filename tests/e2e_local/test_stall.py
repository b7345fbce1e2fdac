"""A worker that hangs: found by its own watchdog, named, and replaced."""

from __future__ import annotations

import pytest
from shell import Shell, refused

pytestmark = pytest.mark.slow

# At the fourth step of the first group, and at the third step of every later one.
HANGING = """
import time
from pathlib import Path
import torch.distributed as dist
from tests.e2e_local.mean import Mean

class Hanging(Mean):
    def __init__(self, once):
        super().__init__()
        self.once = Path(once)
        self.last = 3 if self.once.exists() else 4
    def loss(self, batch):
        self.calls += 1
        if self.calls == self.last and dist.get_rank() == 1:
            self.once.touch()
            time.sleep(10_000)
        return super().loss(batch)

def build(spec, info):
    return Hanging(spec.custom.options["once"]).built()
"""


def test_a_worker_that_hangs_costs_a_restart_and_one_that_hangs_for_good_ends_the_run(shell: Shell) -> None:
    (shell.path / "hanging.py").write_text(HANGING)
    shell.manifest(
        vae=None,
        custom={"objective": "hanging:build", "options": {"once": str(shell.path / "hung")}},
        recovery={"maxRetries": 1, "stallTimeout": "10s"},
        compute={"workers": 2, "gpusPerWorker": 0},
    )
    done = shell.gtj("run", "-f", "job.yaml", "--run-dir", "run")
    (lost,) = [event for event in shell.run.attempts() if event["event"] == "worker-lost"]
    assert lost["message"].startswith("no step for 1")
    begun = [event["step"] for event in shell.run.attempts() if event["event"] in ("started", "resumed")]
    assert (len(begun), shell.run.progress()["restarts"]) == (2, 1)
    after = f"after step {begun[-1] + 2}"  # the new group trained
    refused(done, "GTJ0210", 5, "no step for 1", after, "hanging.py:", "in loss", "stacks-1.txt", "recovery.stallTimeout")
    assert "hanging.py" in (shell.run.path / "logs" / "stacks-1.txt").read_text()
    waiting = shell.run.path / "logs" / "stacks-0.txt"  # its worker may have been ended before it could write
    assert not waiting.exists() or "all_reduce" in waiting.read_text()
