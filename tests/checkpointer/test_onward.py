"""What a resumed run is told: rates that leap, averages that begin to warm up, layers that depend on the cut; and nothing otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from trainjobs.api.codes import CODES, OK
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.training import Training
from trainjobs.checkpointer.before import account
from trainjobs.checkpointer.onward import cut_counts, differences, layers, rate_leaps
from trainjobs.checkpoints import Commit
from trainjobs.data.origin import Origin
from trainjobs.plan.batch import Cut


def commit(step: int = 100, world: int = 1, *, ema: bool = False, steps: int | None = None, micro: int | None = None) -> Commit:
    """One that carries an account of its run, or one of a version of before."""
    metadata: dict[str, Any] = {"ema": ema}
    metadata |= {"job": {"training.steps": steps}} if steps else {}
    metadata |= {"around": {"micro-batch": micro}} if micro else {}
    return Commit(3, 1, step, 10 * step, "steps/1", "sha256:0", 0.0, metadata, {}, 10, world)


def training(steps: int, schedule: dict[str, Any] | None = None, **more: Any) -> Training:
    return Training.model_validate({"steps": steps, "batch": {"global": 8}, "schedule": schedule or {"name": "cosine"}, **more})


NORM = {"net": nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))}
SPECTRAL = {"critic": parametrizations.spectral_norm(nn.Linear(2, 2))}
DROPPING = {"net": nn.LSTM(2, 2, num_layers=2, dropout=0.5)}


def test_what_is_asked_of_a_commit_is_in_the_account_that_it_carries() -> None:
    whole = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 100, "schedule": {"name": "cosine"}}}
    told = account(Spec.model_validate(whole), Origin("builtin:digits", 1797, 0, "d", {}), "place", **{"micro-batch": 8})
    before = Commit(3, 1, 100, 1000, "steps/1", "sha256:0", 0.0, {"ema": True, **told}, {}, 10, 1)
    found = [error.where for error in differences(before, training(200, ema={"decay": 0.9999}), {"net": 0.01}, Cut(1, 2, 4), NORM, 1)]
    assert found == ["spec.training.steps", "spec.training.batch"]


def test_a_run_that_goes_on_as_it_was_is_told_nothing() -> None:
    now, cut = training(200, ema={"decay": 0.9999}), Cut(2, 2, 2)
    before = commit(steps=200, micro=2, world=2, ema=True)
    assert list(differences(before, now, {"net": 0.01}, cut, NORM | SPECTRAL | DROPPING, 1)) == []


@pytest.mark.parametrize(
    ("precision", "stage", "cut", "said"),
    [
        ("fp16", 1, Cut(2, 2, 2), False),
        ("fp16", 1, Cut(1, 2, 4), True),
        ("fp16", 3, Cut(2, 1, 4), True),
        ("fp16", 0, Cut(1, 2, 4), False),
        ("bf16", 1, Cut(1, 2, 4), False),
    ],
)
def test_fp16_from_stage_1_on_is_told_where_the_cut_is_another(precision: str, stage: int, cut: Cut, said: bool) -> None:
    before = commit(steps=200, micro=2, world=2)
    found = list(differences(before, training(200, precision=precision), {}, cut, {"net": nn.Linear(2, 2)}, stage))
    assert ["fp16 gradients overflow" in error.why for error in found] == [True] * said


def told(found: list[JobError]) -> JobError:
    (error,) = found
    assert error.code == "GTJ0127"
    assert CODES[error.code].exit_code == OK
    return error


def test_a_finished_cosine_run_that_is_extended_leaps_and_says_from_what_to_what() -> None:
    """Of 200 steps the middle is half of the peak."""
    error = told(list(rate_leaps(commit(100, steps=100), training(200), {"G": 0.02, "D": 0.04})))
    assert error.what == "the learning rate goes from 0 to 0.00992 (G) and 0 to 0.0198 (D) at step 101"
    assert error.why == "the cosine schedule ended at step 100, and ends at step 200 now"
    assert "initialWeights" in error.how


@pytest.mark.parametrize(
    ("before", "step", "now", "schedule"),
    [
        (100, 100, 200, {"name": "constant", "warmupSteps": 10}),
        (100, 100, 200, {"name": "cosine", "finalRatio": 1.0}),
        (100, 50, 100, {"name": "cosine"}),
        (100, 100, 100, {"name": "cosine"}),
        (100, 50, 200, {"name": "linear", "warmupSteps": 80}),
    ],
)
def test_a_rate_that_goes_on_is_not_told(before: int, step: int, now: int, schedule: dict[str, Any]) -> None:
    assert list(rate_leaps(commit(step, steps=before), training(now, schedule), {"net": 1.0})) == []


def test_a_rate_that_leaps_amid_a_run_is_told_and_one_of_a_version_before_is_not_known() -> None:
    assert "0.505 to 0.749" in told(list(rate_leaps(commit(50, steps=100), training(200, {"name": "linear"}), {"net": 1.0}))).what
    assert list(rate_leaps(commit(50), training(200, {"name": "linear"}), {"net": 1.0})) == []


@pytest.mark.parametrize(
    ("networks", "same_micro_other_workers", "words"),
    [
        (NORM, True, "batch norm of net is over a micro-batch, and its running statistics are those of rank 0"),
        (SPECTRAL, True, "spectral norm of critic goes one power iteration further with each micro-batch of a process"),
        (DROPPING, False, "dropout of net is drawn within a function of torch"),
        ({"net": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))}, False, None),
        ({"net": nn.MultiheadAttention(2, 1, dropout=0.5)}, False, None),
    ],
)
def test_layers_that_depend_on_the_cut(networks: dict[str, nn.Module], same_micro_other_workers: bool, words: str | None) -> None:
    other_micro = list(cut_counts(commit(micro=8), Cut(1, 2, 4), networks))
    other_workers = list(cut_counts(commit(micro=2), Cut(2, 2, 2), networks))
    assert bool(other_micro) == (words is not None)
    assert bool(other_workers) == same_micro_other_workers
    assert list(cut_counts(commit(micro=2), Cut(1, 2, 4), networks)) == []
    if words:
        assert words in told(other_micro).why
        assert told(other_micro).what == "micro-batches of 2 on 1 process, before of 8 on 1, change the numbers"


def test_a_commit_of_before_says_only_how_many_wrote_it() -> None:
    assert list(cut_counts(commit(), Cut(1, 2, 4), NORM)) == []
    assert told(list(cut_counts(commit(), Cut(2, 2, 2), NORM))).what == "micro-batches of 2 on 2 processes, before on 1, change the numbers"


def test_spectral_norm_is_found_in_either_form() -> None:
    assert layers(spectral_norm(nn.Linear(2, 2))) == layers(SPECTRAL["critic"]) == {"spectral norm"}


def test_an_average_of_a_version_without_warm_up_begins_to_warm_up() -> None:
    now, cut = training(1000, ema={"decay": 0.999}), Cut(1, 8, 1)
    error = told(list(differences(commit(100, ema=True), now, {}, cut, {}, 1)))
    assert error.what == "the moving average goes on with a decay of 0.9182 at step 101, not 0.999"  # 101 / 110
    assert list(differences(commit(100, ema=True), training(1000, ema={"decay": 0.999, "warmup": False}), {}, cut, {}, 1)) == []
    assert list(differences(commit(9000, ema=True), training(10_000, ema={"decay": 0.999}), {}, cut, {}, 1)) == []
