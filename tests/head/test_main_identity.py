"""Whose a head's report is, and that nothing but the head can write the record of a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainjobs.api.job import Job
from trainjobs.head.__main__ import identity
from trainjobs.head.metrics_server import LIMIT, Report, bounded
from trainjobs.run import progress


def job(uid: str | None) -> Job:
    metadata = {"name": "faces", **({"uid": uid} if uid else {})}
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 6}}
    return Job.model_validate({"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": metadata, "spec": spec})


@pytest.mark.parametrize(
    ("uid", "attempt", "said"), [("u-1", "3", {"uid": "u-1", "attempt": 3}), ("u-1", "", {}), (None, "3", {}), ("u-1", "x", {})]
)
def test_a_head_knows_its_job_and_attempt(monkeypatch: pytest.MonkeyPatch, uid: str | None, attempt: str, said: object) -> None:
    monkeypatch.setenv("GENTRAIN_ATTEMPT", attempt)
    assert identity(job(uid)) == said


def test_nothing_in_the_run_folder_says_whose_report_it_is(tmp_path: Path) -> None:
    progress.update(tmp_path, step=5, job={"uid": "another", "attempt": 9})
    mine = {"uid": "u-1", "attempt": 1}
    assert Report(tmp_path, mine).read()["job"] == mine
    assert Report(tmp_path, mine).read()["step"] == 5


def test_a_report_that_is_cut_still_says_whose_it_is(tmp_path: Path) -> None:
    progress.update(tmp_path, **{f"field{number}": {f"m{inner}": "x" * 4000 for inner in range(60)} for number in range(60)})
    read = json.loads(bounded(Report(tmp_path, {"uid": "u-1", "attempt": 1}).read()))
    assert read["job"] == {"uid": "u-1", "attempt": 1}
    assert len(json.dumps(read)) <= LIMIT
