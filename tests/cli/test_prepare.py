"""The run folder before training: what is refused, what is kept, what may be continued."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.cli.prepare import check_workers, prepare, reserved, set_aside
from trainjobs.cli.run import local
from trainjobs.run.folder import Run


def job(**training: Any) -> Job:
    return Job.model_validate(
        {
            "apiVersion": "gentrain.dev/v1alpha1",
            "kind": "GenerativeTrainingJob",
            "metadata": {"name": "demo"},
            "spec": {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 100, **training}},
        }
    )


def changed(**parts: Any) -> Job:
    """The job with whole parts of its spec replaced."""
    base = job().model_dump(mode="json", by_alias=True, exclude_none=True)
    return Job.model_validate({**base, "spec": {**base["spec"], **parts}})


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder in which the job has come to step 50 and saved it."""
    path = tmp_path / "demo"
    with reserved(path) as run:
        prepare(run, job(), b"first", 1000.0)
    (path / "progress.json").write_text(json.dumps({"phase": "Stopped", "step": 60, "checkpoint": {"step": 50}, "startedAt": 1000.0}))
    (path / "metrics.jsonl").write_text('{"step": 10}\n')
    (path / "failure.json").write_text('{"code": "GTJ0206"}')
    (path / "stop").touch()
    return path


def again(path: Path, new: Job) -> int:
    with reserved(path) as run:
        return prepare(run, new, b"second", 2000.0)


def code_of(path: Path, new: Job) -> tuple[str, str]:
    with pytest.raises(JobError) as caught:
        again(path, new)
    return caught.value.code, caught.value.why


def test_a_new_folder_holds_the_bytes_and_the_validated_job(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "demo"
    with reserved(path) as run:
        assert prepare(run, job(seed=3), b"# mine\n\xf0\x9f\x98\x80", 1000.0) == 0
    assert (path / "job.yaml").read_bytes() == b"# mine\n\xf0\x9f\x98\x80"
    assert Job.model_validate_json((path / "job.json").read_text()) == job(seed=3)
    assert Run(path).progress()["startedAt"] == 1000.0
    assert "torch" in Run(path).versions()
    assert not list(path.glob(".*"))


def test_the_same_job_goes_on_and_the_old_end_is_cleared(trained: Path) -> None:
    assert again(trained, job()) == 50
    assert Run(trained).failure() is None
    assert not (trained / "stop").exists()
    assert (trained / "metrics.jsonl").exists()
    progress = Run(trained).progress()
    assert (progress["phase"], progress["metrics"], progress["startedAt"]) == ("Preparing", {}, 1000.0)


def test_more_steps_go_on_and_fewer_than_done_are_refused(trained: Path) -> None:
    assert again(trained, job(steps=200)) == 50
    assert again(trained, job(steps=50)) == 50
    assert code_of(trained, job(steps=49))[0] == "GTJ0115"


def test_what_does_not_change_the_maths_may_change(trained: Path) -> None:
    assert again(trained, job(batch={"micro": 8})) == 50
    same = {"compute": {"workers": 2}, "deepspeed": {"stage": 1}, "checkpoints": {"every": {"steps": 5}}, "evaluation": {"samples": 4}}
    assert again(trained, changed(**same)) == 50


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"training": {"steps": 100, "seed": 1}}, "training.seed was 0, is 1"),
        ({"training": {"steps": 100, "batch": {"global": 32}}}, "training.batch.global was 64, is 32"),
        ({"training": {"steps": 100, "precision": "bf16"}}, 'training.precision was "fp32", is "bf16"'),
        ({"vae": {"loss": {"beta": 4.0}}}, "vae.loss.beta was null, is 4.0"),
        ({"data": {"source": "builtin:ring"}}, 'data.source was "builtin:digits", is "builtin:ring"'),
        ({"deepspeed": {"config": {"zero_optimization": {"round_robin_gradients": True}}}}, "deepspeed.config"),
        ({"training": {"steps": 100, "optimizers": {"default": {"learningRate": 0.5}}}}, "training.optimizers"),
    ],
)
def test_what_changes_the_maths_is_refused_by_name(trained: Path, parts: dict[str, Any], why: str) -> None:
    code, said = code_of(trained, changed(**parts))
    assert code == "GTJ0115"
    assert why in said
    assert (trained / "job.yaml").read_bytes() == b"first"
    assert Run(trained).failure() is not None


def test_a_mended_manifest_may_reuse_a_folder_that_saved_nothing(trained: Path) -> None:
    (trained / "progress.json").write_text('{"phase": "Failed", "step": 3}')
    assert again(trained, job(seed=9)) == 0
    assert not (trained / "metrics.jsonl").exists()


def test_a_folder_of_a_foreign_version_is_not_overwritten(trained: Path) -> None:
    (trained / "job.json").write_text('{"apiVersion": "gentrain.dev/v9"}')
    assert code_of(trained, job())[0] == "GTJ0115"


def test_fresh_keeps_the_earlier_run(trained: Path) -> None:
    assert set_aside(trained) == trained.with_name("demo.1")
    assert not trained.exists()
    assert again(trained, job(seed=1)) == 0
    assert set_aside(trained) == trained.with_name("demo.2")
    assert Run(trained.with_name("demo.1")).progress()["step"] == 60
    assert set_aside(trained) is None


@pytest.mark.parametrize("lock", ["lock", "gtj.lock"])
def test_a_folder_in_use_is_refused(trained: Path, lock: str) -> None:
    with (trained / lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(JobError) as caught:
            again(trained, job())
        assert caught.value.code == "GTJ0117"
        with pytest.raises(JobError):
            set_aside(trained)
    assert again(trained, job()) == 50


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError) as caught:
        again(tmp_path / "file" / "demo", job())
    assert (caught.value.code, caught.value.exit_code) == ("GTJ0114", 7)
    assert "Not a directory" in caught.value.why


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(JobError) as caught:
        again(tmp_path / "demo", job())
    assert caught.value.code == "GTJ0114"


def test_more_workers_than_cores() -> None:
    check_workers(changed(compute={"workers": 2}), 2)
    with pytest.raises(JobError) as caught:
        check_workers(changed(compute={"workers": 3}), 2)
    assert (caught.value.code, caught.value.exit_code) == ("GTJ0116", 4)
    assert "--workers 2" in caught.value.how


@pytest.mark.parametrize(
    ("given", "option", "available", "used"),
    [
        ("2-8", None, 16, "2-8"),
        ("2-8", None, 7, "2-4"),  # of 64 samples, 5 to 7 workers take no equal parts
        ("2-8", None, 3, 2),
        ("2-8", None, 1, 2),  # refused by check_workers
        ("2-8", 4, 2, 4),
        (4, None, 16, 4),
    ],
)
def test_an_elastic_group_is_as_large_as_the_machine(given: int | str, option: int | None, available: int, used: int | str) -> None:
    job = changed(compute={"workers": given, "gpusPerWorker": 0})
    assert local(job, option, no_ray=False, fresh=False, available=available).spec.compute.workers == used


def test_one_process_has_one_worker() -> None:
    job = changed(compute={"workers": "2-8", "gpusPerWorker": 0})
    assert local(job, None, no_ray=True, fresh=False, available=16).spec.compute.workers == 1
