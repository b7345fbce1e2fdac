"""Notes: what is told of a job that breaks no rule, and that nothing is told of one where all is well."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.codes import CODES, OK
from trainjobs.api.job import Job
from trainjobs.api.notes import LARGEST_BETA, betas, notes
from trainjobs.api.problem import Problem
from trainjobs.api.rules import check


def job(*, diffusion: dict[str, Any] | None = None, **training: Any) -> Job:
    spec = {"diffusion": diffusion or {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1000, **training}}
    metadata = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}}
    return Job.model_validate({**metadata, "spec": spec})


def told(code: str, **given: Any) -> list[Problem]:
    found = notes(job(**given))
    assert all(note.note and CODES[note.code].exit_code == OK for note in found)
    return [note for note in found if note.code == code]


def test_nothing_is_told_of_a_job_where_all_is_well() -> None:
    assert notes(job(ema={}, schedule={"name": "cosine", "warmupSteps": 100})) == []
    assert notes(job()) == []


@pytest.mark.parametrize(
    ("warmup", "steps", "words"),
    [(99, 100, None), (100, 100, "the peak at the last step alone"), (400, 100, "at most 0.25 of the peak"), (0, 1, None)],
)
def test_a_warm_up_that_does_not_end_before_the_run(warmup: int, steps: int, words: str | None) -> None:
    found = told("GTJ0123", steps=steps, schedule={"warmupSteps": warmup})
    assert bool(found) == (words is not None)
    if words:
        (note,) = found
        assert note.path == ("spec", "training", "schedule", "warmupSteps")
        assert words in note.why


def test_an_average_that_reaches_back_further_than_the_run() -> None:
    assert told("GTJ0124", steps=1000, ema={"decay": 0.999}) == []
    (note,) = told("GTJ0124", steps=999, ema={"decay": 0.999})
    assert note.what == "the moving average reaches back 1000 steps, and the run has 999"
    assert note.path == ("spec", "training", "ema", "decay")


def test_what_the_average_will_be_is_told() -> None:
    (warm,) = told("GTJ0124", steps=150, ema={"decay": 0.9999})
    assert warm.why == "its warm-up does not end: at the last step it keeps 0.943 of itself, and so reaches back 18 steps"  # 150 / 159
    (cold,) = told("GTJ0124", steps=150, ema={"decay": 0.9999, "warmup": False})
    assert "99 % of it is the random start" in cold.why  # 0.9999 ** 150 = 0.985
    assert told("GTJ0124", steps=150, ema={"decay": float(cold.how.split()[-1])}) == [], "what is advised is not noted again"


def test_half_life_counts_samples() -> None:
    """0.5 ** (64 / h) reaches back 1 / (1 - decay), about h / (64 ln 2) steps."""
    assert told("GTJ0124", steps=1000, ema={"halfLife": 44_000}) == []
    (note,) = told("GTJ0124", steps=1000, ema={"halfLife": 46_000})
    assert note.path[-1] == "halfLife"
    assert "halfLife of 3200 samples" in note.how
    assert told("GTJ0124", steps=1000, ema={"halfLife": 3200}) == []


@pytest.mark.parametrize(("timesteps", "cut"), [(1000, 0), (21, 0), (20, 1), (10, 5)])
def test_betas_of_the_linear_schedule_that_are_cut(timesteps: int, cut: int) -> None:
    found = told("GTJ0125", diffusion={"process": {"schedule": "linear", "timesteps": timesteps}, "sampler": {"steps": 5}})
    assert [note.what.split()[0] for note in found] == ([str(cut)] if cut else [])
    assert not told("GTJ0125", diffusion={"process": {"schedule": "cosine", "timesteps": timesteps}, "sampler": {"steps": 5}})


@pytest.mark.parametrize(("timesteps", "cut"), [(1000, 0), (13, 0), (12, 1)])
def test_betas_of_the_scaled_linear_schedule_that_are_cut(timesteps: int, cut: int) -> None:
    found = told("GTJ0125", diffusion={"process": {"schedule": "scaled-linear", "timesteps": timesteps}, "sampler": {"steps": 5}})
    assert [note.what.split()[0] for note in found] == ([str(cut)] if cut else [])


@pytest.mark.parametrize("timesteps", [2, 10, 20, 1000])
@pytest.mark.parametrize("schedule", ["linear", "scaled-linear"])
def test_the_betas_are_those_that_train(schedule: str, timesteps: int) -> None:
    process = pytest.importorskip("trainjobs.objectives.diffusion.process")
    signal, product = process.cumulative_signal(schedule, timesteps).tolist(), 1.0
    for beta, expected in zip(betas(schedule, timesteps), signal, strict=True):
        product *= 1.0 - min(beta, LARGEST_BETA)
        assert product == pytest.approx(expected, rel=1e-9)


def test_a_sampler_of_more_steps_than_there_are_is_refused_unless_it_is_the_default() -> None:
    given = job(diffusion={"process": {"timesteps": 20}, "sampler": {"steps": 21}})
    (problem,) = check(given)
    assert (problem.code, problem.path) == ("GTJ0108", ("spec", "diffusion", "sampler", "steps"))
    assert "at most 20 steps" in problem.how
    assert check(job(diffusion={"process": {"timesteps": 20}})) == []
    (note,) = told("GTJ0126", diffusion={"process": {"timesteps": 20}})
    assert note.what == "samples take 20 network evaluations, not 50"
    assert not told("GTJ0126", diffusion={"process": {"timesteps": 50}})


@pytest.mark.parametrize("process", [{"prediction": "flow"}, {"schedule": "learned"}])
def test_continuous_time_has_room_for_every_step(process: dict[str, Any]) -> None:
    given = {"process": {**process, "timesteps": 20}, "sampler": {"steps": 21}}
    assert check(job(diffusion=given)) == []
    assert not told("GTJ0126", diffusion=given)


def test_one_horizon() -> None:
    (problem,) = check(job(ema={"decay": 0.99, "halfLife": 1000}))
    assert (problem.code, problem.path, problem.on_key) == ("GTJ0108", ("spec", "training", "ema", "halfLife"), True)
    assert check(job(ema={"halfLife": 1000})) == []
    assert check(job(ema={"decay": 0.999, "halfLife": 1000})) == [], "a default never offends: the API server writes it out"
