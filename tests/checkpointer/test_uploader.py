"""The process that uploads: against a real folder, with real processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpointer.snapshot import Snapshot
from trainjobs.checkpointer.uploader import Uploader
from trainjobs.checkpoints import Checkpoints, Commit, Fenced, open_store
from trainjobs.checkpoints.tensors import decode_index
from trainjobs.engine.parts import part

pytestmark = pytest.mark.slow


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Snapshot]:
    (tmp_path / "scratch").mkdir()
    made = Snapshot(tmp_path / "scratch", torch.device("cpu"), 1)
    yield made
    made.close()


@pytest.fixture
def uploader(tmp_path: Path) -> Iterator[Uploader]:
    made = Uploader(f"file://{tmp_path}/store", Keep(last=1))
    yield made
    made.close()


def uploaded(uploader: Uploader, snapshot: Snapshot, tensor: torch.Tensor, prefix: str, attempt: int) -> object:
    def upload(files: object, index: bytes) -> None:
        uploader.upload(prefix, 0, attempt, files, index)  # type: ignore[arg-type]

    snapshot.take({"net": [part("fp32/w", tensor)]}, upload)
    snapshot.wait()
    return uploader.answer()


def committed(uploader: Uploader, prefix: str, step: int, attempt: int, digest: object) -> object:
    told = {"attempt": attempt, "step": step, "samples": step, "metadata": {}, "metrics": {}, "digests": [digest]}
    uploader.commit(prefix, told)
    return uploader.answer()


def test_it_imports_no_torch() -> None:
    """Each worker has one: two seconds of a core at every start, and hundreds of megabytes for as long as it trains."""
    told = "import sys, trainjobs.checkpointer.uploader; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()
    assert "pydantic" in found
    assert not {"torch", "numpy", "deepspeed", "ray", "boto3", "azure", "google.cloud"} & set(found)


def test_uploads_commits_and_drops_what_is_not_kept(uploader: Uploader, snapshot: Snapshot, tmp_path: Path) -> None:
    reader = Checkpoints(open_store(f"file://{tmp_path}/store"), keep=Keep())
    attempt, weights = reader.begin(), torch.zeros(7)
    for step in (1, 2, 3):
        weights.fill_(step)  # the same memory, and the same open file, every time
        prefix = reader.prefix(step, attempt)
        found = committed(uploader, prefix, step, attempt, uploaded(uploader, snapshot, weights, prefix, attempt))
        assert isinstance(found, Commit)
        assert found.step == step
    uploader.close()  # retention is part of what it was asked to do
    assert os.listdir(tmp_path / "store" / "steps") == [f"{3:012d}-a{attempt}"]
    reader.verify(found)
    file = tmp_path / "store" / found.prefix / "rank-0" / "net.safetensors"
    assert torch.equal(load_file(file)["fp32/w"], torch.full((7,), 3.0))
    (slice,) = decode_index(reader.read(found, 0, "index.json"))["net.safetensors"]
    assert (slice.key, slice.dtype, slice.shape, slice.start, slice.length) == ("fp32/w", "F32", (7,), 0, 7)


def at_work() -> psutil.Process:
    """The uploader's process; what other tests left dead has no command line."""
    living = (process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE)
    (child,) = [process for process in living if "trainjobs.checkpointer.uploader" in process.cmdline()]
    return child


def test_one_that_is_killed_is_told_and_followed_by_another(uploader: Uploader, snapshot: Snapshot, tmp_path: Path) -> None:
    reader = Checkpoints(open_store(f"file://{tmp_path}/store"), keep=Keep())
    attempt = reader.begin()
    prefix = reader.prefix(1, attempt)
    digest = uploaded(uploader, snapshot, torch.ones(3), prefix, attempt)
    child = at_work()
    child.send_signal(signal.SIGSTOP)
    uploader.commit(prefix, {"attempt": attempt, "step": 1, "samples": 1, "metadata": {}, "metrics": {}, "digests": [digest]})
    child.kill()
    error = uploader.answer()
    assert isinstance(error, JobError)
    assert error.code == "GTJ0211"
    assert "ended with status -9" in str(error.why)
    assert reader.newest() is None
    prefix = reader.prefix(2, attempt)
    found = committed(uploader, prefix, 2, attempt, uploaded(uploader, snapshot, torch.ones(3), prefix, attempt))
    assert isinstance(found, Commit), "the files were sent again"
    assert reader.newest() == found


def test_one_that_was_killed_while_it_had_nothing_to_do_is_replaced_unnoticed(
    uploader: Uploader, snapshot: Snapshot, tmp_path: Path
) -> None:
    reader = Checkpoints(open_store(f"file://{tmp_path}/store"), keep=Keep())
    attempt = reader.begin()
    for step in (1, 2):
        prefix = reader.prefix(step, attempt)
        found = committed(uploader, prefix, step, attempt, uploaded(uploader, snapshot, torch.ones(3), prefix, attempt))
        assert isinstance(found, Commit)
        child = at_work()
        child.kill()
        psutil.wait_procs([child], timeout=60)
    assert reader.newest() == found


def test_what_the_store_refuses_is_the_answer(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    uploader = Uploader(f"file://{tmp_path}/store/runs", Keep())
    error = uploaded(uploader, snapshot, torch.ones(3), "steps/000000000001-a1", 1)
    assert isinstance(error, JobError)
    assert error.code == "GTJ0211"
    assert error.why == "Not a directory"
    uploader.close()


def test_a_fenced_attempt_commits_nothing(uploader: Uploader, snapshot: Snapshot, tmp_path: Path) -> None:
    reader = Checkpoints(open_store(f"file://{tmp_path}/store"), keep=Keep())
    attempt = reader.begin()
    prefix = reader.prefix(1, attempt)
    digest = uploaded(uploader, snapshot, torch.ones(3), prefix, attempt)
    reader.begin()
    error = committed(uploader, prefix, 1, attempt, digest)
    assert isinstance(error, Fenced)
    assert error.attempt == attempt
    assert reader.newest() is None


WORKER = """
import json, os, signal, sys, torch
from pathlib import Path
from trainjobs.api.checkpoints import Keep
from trainjobs.checkpointer.uploader import Uploader
uploader = Uploader(sys.argv[1], Keep())
line = uploader._open()
print(json.dumps(uploader._pid()), flush=True)
signal.pause()
"""


def test_it_ends_with_its_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, f"file://{tmp_path}/store"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    child = psutil.Process(json.loads(worker.stdout.readline()))
    assert child.is_running()
    worker.kill()
    worker.wait()
    worker.stdout.close()
    gone, alive = psutil.wait_procs([child], timeout=60)
    assert not alive
    assert gone
