"""Training that fails by itself: a loss that is no number, and users' own code that raises."""

from __future__ import annotations

from typing import Any

import pytest
from shell import SPEC, Shell, explained, refused

pytestmark = pytest.mark.slow

RAISING = """
import torch.distributed as dist
from tests.e2e_local.mean import Mean

class Raising(Mean):
    def __init__(self, rank):
        super().__init__()
        self.rank = rank
    def loss(self, batch):
        self.calls += 1
        if self.calls == 5 and dist.get_rank() == self.rank:  # the checkpoint of step 2 is committed when step 4 is saved
            raise ValueError("my own mistake")
        return super().loss(batch)

def build(spec, info):
    return Raising(spec.custom.options["rank"]).built()
"""


def raising(shell: Shell, rank: int, **parts: Any) -> None:
    (shell.path / "raising.py").write_text(RAISING)
    custom = {"objective": "raising:build", "options": {"rank": rank}}
    shell.manifest(vae=None, custom=custom, recovery={"maxRetries": 0}, **parts)


def test_a_loss_that_is_not_finite(shell: Shell) -> None:
    optimizers = {"default": {"name": "sgd", "learningRate": 100}}
    shell.manifest(training={**SPEC["training"], "steps": 12, "optimizers": optimizers}, recovery={"onNonFiniteLoss": "halt"})
    refused(shell.train(), "GTJ0207", 5, "loss", "not finite", "where: step ", "the last good checkpoint is at step 2", "learningRate")
    explained(shell.run, "GTJ0207")
    assert shell.gtj("checkpoints", "verify", "run").returncode == 0


def test_code_that_raises(shell: Shell) -> None:
    raising(shell, rank=0)
    refused(shell.train(), "GTJ0214", 5, "ValueError: my own mistake", "the training code raised it", "run/logs/driver.log")
    explained(shell.run, "GTJ0214")
    assert 'raise ValueError("my own mistake")' in shell.run.driver_log.read_text()
    assert "GTJ0214 ValueError: my own mistake" in shell.gtj("status", "run").stdout
    assert shell.run.progress()["checkpoint"]["step"] == 2


def test_code_that_cannot_be_imported(shell: Shell) -> None:
    shell.manifest(vae=None, custom={"objective": "nowhere.at_all:build"})
    refused(shell.train(), "GTJ0102", 3, "nowhere.at_all:build cannot be imported", "No module named 'nowhere'", "PYTHONPATH")


DYING = """
if not os.path.exists("died"):
                open("died", "x")
                os._exit(1)
            ctypes.string_at(0)
"""


def test_a_worker_that_dies_by_itself_is_started_again_as_often_as_the_job_allows(shell: Shell) -> None:
    """By a status the first time, and by a signal the second."""
    (shell.path / "raising.py").write_text("import ctypes, os\n" + RAISING.replace('raise ValueError("my own mistake")', DYING.strip()))
    custom = {"objective": "raising:build", "options": {"rank": 1}}
    training = {**SPEC["training"], "steps": 12}
    shell.manifest(vae=None, custom=custom, training=training, recovery={"maxRetries": 1}, compute={"workers": 2, "gpusPerWorker": 0})
    done = shell.gtj("run", "-f", "job.yaml", "--run-dir", "run")
    refused(done, "GTJ0214", 5, "the process of rank 1 died by itself", "its machine is still there", "run/logs/worker-1.log", "is kept")
    explained(shell.run, "GTJ0214")
    assert len([event for event in shell.run.attempts() if event["event"] in ("started", "resumed")]) == 2
    (lost,) = [event for event in shell.run.attempts() if event["event"] == "worker-lost"]
    print(lost)
    assert "rank 1" in lost["message"]


def test_a_loss_that_is_not_finite_is_told_once(shell: Shell) -> None:
    """On the screen, in the worker's log, and by `gtj status`."""
    optimizers = {"default": {"name": "sgd", "learningRate": 100}}
    shell.manifest(training={**SPEC["training"], "steps": 12, "optimizers": optimizers}, recovery={"onNonFiniteLoss": "halt"})
    done = shell.gtj("run", "-f", "job.yaml", "--run-dir", "run")
    refused(done, "GTJ0207", 5, "not finite")
    assert done.stderr.count("not finite") == 1
    assert (shell.run.path / "logs" / "worker-0.log").read_text().count("not finite") == 1
    assert shell.gtj("status", "run").stdout.count("not finite") == 1


def test_code_that_raises_in_one_worker_of_two(shell: Shell) -> None:
    """The message, the log that is named and its traceback are that worker's, not those of the one that lost sight of it."""
    raising(shell, rank=1, compute={"workers": 2, "gpusPerWorker": 0})
    done = shell.gtj("run", "-f", "job.yaml", "--run-dir", "run")
    refused(done, "GTJ0214", 5, "ValueError: my own mistake", "run/logs/worker-1.log")
    explained(shell.run, "GTJ0214")
    failure = shell.run.failure()
    assert failure is not None
    assert failure["rank"] == 1
    assert 'raise ValueError("my own mistake")' in (shell.run.path / "logs" / "worker-1.log").read_text()
    assert shell.gtj("checkpoints", "verify", "run").returncode == 0
