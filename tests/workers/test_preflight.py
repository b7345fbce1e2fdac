"""What is found wrong before anything heavy starts, and what is tried again: a store of the test's."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.run import progress
from trainjobs.stores.file import FileStore
from trainjobs.stores.store import Reason, StoreError
from trainjobs.workers import preflight as module
from trainjobs.workers.preflight import preflight


def job(source: str = "builtin:digits", **checkpoints: Any) -> Job:
    spec = {"vae": {}, "data": {"source": source}, "training": {"steps": 2}, "checkpoints": checkpoints}
    return Job.model_validate(
        {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "job"}, "spec": spec}
    )


def test_data_and_store_are_looked_at_and_nothing_stays_behind(tmp_path: Path) -> None:
    preflight(job(), tmp_path)
    assert "1797 images" in progress.read(tmp_path / "progress.json")["data"]
    assert not [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]


def test_data_that_is_not_there_is_told_before_the_store_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "open_store", lambda uri, patience: pytest.fail("the store was asked"))
    with pytest.raises(JobError, match="GTJ01"):
        preflight(job(f"file://{tmp_path}/none"), tmp_path)


class Refusing(FileStore):
    def __init__(self, root: Path, reason: Reason) -> None:
        super().__init__(root)
        self._reason: Reason = reason

    def put_if_absent(self, key: str, data: bytes) -> bool:
        raise StoreError(key, "as the store says", self._reason)


@pytest.mark.parametrize(("reason", "code"), [("failed", "GTJ0211"), ("denied", "GTJ0114"), ("full", "GTJ0114"), ("no bucket", "GTJ0114")])
def test_no_answer_may_be_another_the_next_time_and_a_refusal_is_the_users(
    reason: Reason, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def opened(uri: str, patience: Any) -> FileStore:
        asked.append((uri, patience))
        return Refusing(tmp_path / "store", reason)

    monkeypatch.setattr(module, "open_store", opened)
    monkeypatch.setattr(module, "Checkpoints", partial(module.Checkpoints, pause=lambda seconds: None))
    with pytest.raises(JobError) as refused:
        preflight(job(uri="s3://bucket/runs"), tmp_path)
    assert (refused.value.code, refused.value.why) == (code, "as the store says")
    assert refused.value.what == "checkpoints cannot be written"
    ((uri, patience),) = asked
    assert uri == "s3://bucket/runs/job"
    assert patience == module.Patience(20.0), "soon, not after as long as a checkpoint would be worth"


@pytest.mark.slow
def test_neither_torch_nor_ray_is_imported_by_the_driver_or_by_gtj_run() -> None:
    """A second each, of the time before the first step."""
    program = "import sys, trainjobs.workers.launch, trainjobs.cli.run; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
