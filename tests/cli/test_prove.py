"""What prove-resume makes of a manifest, and how it tells what it found."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.job import Job
from trainjobs.cli.prove import Proof, small
from trainjobs.report.difference import Comparison, Difference


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


def job(**parts: Any) -> Job:
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 20, "batch": {"global": 8}}, **parts}
    head = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "job"}}
    return Job.model_validate({**head, "spec": spec})


@pytest.mark.parametrize(("at", "every"), [(1, 1), (2, 1), (10, 6), (19, 12)])
def test_a_checkpoint_comes_before_the_kill_and_none_with_it(at: int, every: int) -> None:
    made = small(job(), at).spec.checkpoints
    assert made.every is not None
    assert made.every.steps == every <= at
    assert at % every or at < 3


def test_nothing_is_written_where_the_manifest_says() -> None:
    told = {"uri": "s3://bucket/x", "every": {"minutes": 10}, "keep": {"last": 1}, "resumeFrom": "s3://bucket/y"}
    made = small(job(checkpoints=told, evaluation={"everySteps": 3}), 10).spec
    assert made.checkpoints.uri is None
    assert made.checkpoints.resume_from == "latest"
    assert made.checkpoints.keep.last > 20
    assert made.evaluation.every_steps == 10


def test_evaluations_that_a_plateau_is_counted_in_stay() -> None:
    training = {"steps": 20, "batch": {"global": 8}, "schedule": {"name": "plateau"}}
    assert small(job(training=training, evaluation={"everySteps": 3}), 10).spec.evaluation.every_steps == 3
    assert small(job(training=training), 10).spec.evaluation.every_steps == 10


def proof(*differences: Difference) -> Proof:
    return Proof("job", 20, 10, 6, Comparison(20, ("kl", "loss"), (6, 12, 18, 20), 8, 2048, differences))


def test_all_is_equal() -> None:
    assert list(proof().lines()) == [
        "bit-exact  job: 20 steps, killed after step 10, resumed from step 6",
        "  metrics     kl, loss, of 20 steps, equal",
        "  checkpoints of steps 6, 12, 18, 20: 8 files, 2 KiB, by digest, equal",
    ]
    assert proof().as_data()["exact"]


def test_the_first_difference_and_the_tensors_of_the_first_checkpoint_that_has_any() -> None:
    found = [Difference(7, False, "loss", (0.5, 0.25))]
    found += [Difference(step, True, f"rank-0/net.safetensors w{number}", ("a", "b")) for step in (12, 18) for number in range(10)]
    lines = list(proof(*found).lines())
    assert lines[0].startswith("different  job")
    assert "  first       step 7, loss: 0.5 undisturbed, 0.25 resumed" in lines
    assert lines[4].startswith("  saved       first not the same at step 12: rank-0/net.safetensors w0, ")
    assert lines[4].endswith(" and 2 more")
    assert "is not in the checkpoint" in lines[5]
    assert proof(*found).as_data()["repeatable"]


def test_tensors_alone() -> None:
    found = [Difference(12, True, name, ("a", "b")) for name in ("bias", "weight")]
    lines = list(proof(*found).lines())
    assert "  first       step 12, in the checkpoint: bias" in lines
    assert "  with it     weight" in lines


def test_what_parts_before_it_was_resumed_is_not_repeatable() -> None:
    told = proof(Difference(6, False, "loss", (1, 2)))
    assert "not repeatable even without a kill" in "\n".join(told.lines())
    assert not told.as_data()["repeatable"]
