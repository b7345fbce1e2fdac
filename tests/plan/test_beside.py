"""What a run does beside its steps: as the manifest says, and where it says nothing, in a tenth of the run at most."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.api.job import Spec
from trainjobs.plan.beside import Beside, beside, draw, due, dues, passes, save_interval, score

SOURCES = {"diffusion": "builtin:digits", "vae": "builtin:digits", "gan": "builtin:ring", "language": "builtin:stdlib-text"}


def spec(family: str, steps: int, evaluation: dict[str, Any] | None = None, **more: Any) -> Spec:
    batch = {"global": more.pop("batch", 64), "micro": more.pop("micro", None)}
    training = {"steps": steps, "batch": {name: value for name, value in batch.items() if value}}
    given = {family: more.pop("model", {}), "data": {"source": SOURCES[family]}, "training": training, "evaluation": evaluation or {}}
    return Spec.model_validate({**given, "compute": {"gpusPerWorker": 0, **more.pop("compute", {})}, **more})


def passed(plan: Beside, given: Spec) -> float:
    """All evaluations of a run, in steps, one by one."""
    steps = given.training.steps
    looks = [step for step in range(1, steps + 1) if step == steps or due(step, plan.every)]
    return sum(plan.score + draw(given, plan.drawn(step == steps)) for step in looks)


@given(
    family=st.sampled_from(sorted(SOURCES)),
    steps=st.integers(1, 4000),
    batch=st.sampled_from((1, 2, 16, 64, 1024)),
    heldout=st.integers(0, 256),
    generated=st.sampled_from((0, 2000)),
    passes=st.integers(1, 1000),
)
def test_what_is_left_open_takes_a_tenth_of_the_run_or_is_the_least_there_is(
    family: str, steps: int, batch: int, heldout: int, generated: int, passes: int
) -> None:
    given = spec(family, steps, batch=batch, model={"sampler": {"steps": passes}} if family == "diffusion" else {})
    plan = beside(given, heldout, generated)
    cost, looks = passed(plan, given), dues(0, steps, plan.every)
    if cost > (steps + cost) / 10 + 1e-9:
        assert plan.samples == 4
        assert looks == 1 or not plan.each, "drawn once"
        assert looks == 1 or looks * plan.score <= steps / 18
    assert 4 <= plan.samples <= 64
    assert ("evaluation.everySteps" in plan.told) == ((plan.every is None and steps > 1) or plan.samples < 64 or not plan.each)


def test_one_diffusion_run_of_twenty_steps_draws_four_samples_once() -> None:
    """Before: ten evaluations of 64 samples in 50 passes, 95 % of the time."""
    given = spec("diffusion", 20)
    plan = beside(given, 256, 0)
    assert (plan.every, plan.samples) == (None, 4)
    assert plan.told == (
        "samples: 64 -> 4, only at the end; held-out scores only at the end: 10 evaluations of 64 samples would count as 900% of the "
        "training; evaluation.everySteps and evaluation.samples decide otherwise"
    )


@pytest.mark.parametrize(
    ("family", "steps", "expected"),
    [
        ("diffusion", 100, (None, 36, True)),
        ("diffusion", 500, (50, 16, True)),
        ("diffusion", 1000, (100, 36, True)),
        ("diffusion", 2000, (200, 64, True)),
        ("language", 100, (None, 4, True)),
        ("language", 500, (50, 64, False)),
        ("language", 5000, (500, 64, True)),
        ("vae", 100, (None, 64, True)),
        ("vae", 500, (50, 64, True)),
        ("gan", 100, (10, 64, True)),
    ],
)
def test_longer_runs_look_more_often_and_draw_more(family: str, steps: int, expected: tuple[int | None, int, bool]) -> None:
    plan = beside(spec(family, steps), 256, 0)
    assert (plan.every, plan.samples, plan.each) == expected


@pytest.mark.parametrize("steps", [1, 20, 5000])
def test_what_is_named_is_done_as_named(steps: int) -> None:
    plan = beside(spec("diffusion", steps, {"everySteps": 2, "samples": 64}), 256, 0)
    assert (plan.every, plan.samples, plan.each, plan.told) == (2, 64, True, "")


def test_a_number_of_samples_is_kept_and_drawn_as_often_as_there_is_time_for() -> None:
    few = beside(spec("diffusion", 20, {"samples": 49}), 256, 0)
    assert (few.every, few.samples) == (None, 49)
    assert few.told.startswith("samples: 49, only at the end; held-out scores only at the end: 10 evaluations")
    many = beside(spec("diffusion", 5000, {"samples": 49}), 256, 0)
    assert (many.every, many.samples, many.each, many.told) == (500, 49, True, "")


def test_steps_between_evaluations_are_kept_and_the_samples_follow() -> None:
    plan = beside(spec("diffusion", 20, {"everySteps": 2}), 256, 0)
    assert (plan.every, plan.samples, plan.each) == (2, 4, False)
    assert [plan.drawn(last) for last in (False, True)] == [0, 4]


def test_whoever_keeps_the_best_checkpoint_has_asked_for_the_scores() -> None:
    plan = beside(spec("diffusion", 20, checkpoints={"keep": {"best": {"metric": "heldout/loss"}}}), 256, 0)
    assert (plan.every, plan.samples, plan.each) == (2, 4, False)


@pytest.mark.parametrize("more", [{"micro": 1}, {"micro": 32}, {"compute": {"workers": 2}}, {"training": None}])
def test_workers_and_micro_batches_do_not_matter(more: dict[str, Any]) -> None:
    """A run that goes on with other workers decides alike."""
    more.pop("training", None)
    assert beside(spec("diffusion", 300, **more), 256, 0) == beside(spec("diffusion", 300), 256, 0)


def test_passes_one_after_the_other() -> None:
    assert passes(spec("diffusion", 1)) == 50
    assert passes(spec("diffusion", 1, model={"process": {"timesteps": 20}})) == 20, "a sampler visits no step twice"
    assert passes(spec("language", 1)) == 128
    assert passes(spec("language", 1, model={"network": {"contextLength": 4096}})) == 256, "texts are not longer"
    assert passes(spec("vae", 1)) == passes(spec("gan", 1)) == 1


def test_a_step_is_three_passes_and_a_gan_measures_nothing_on_held_out_samples() -> None:
    assert score(spec("diffusion", 1), 192, 0) == 1.0
    assert draw(spec("diffusion", 1, model={"sampler": {"steps": 3}}), 64) == 1.0
    assert draw(spec("diffusion", 1, model={"sampler": {"steps": 12}}), 1) == 1.0, "a small pass counts as a quarter"
    assert score(spec("gan", 1), 256, 0) == 0.0
    assert draw(spec("vae", 1), 0) == 0.0


@given(st.integers(0, 60), st.integers(1, 60), st.none() | st.integers(1, 70))
def test_dues_counts_what_is_due(after: int, steps: int, every: int | None) -> None:
    assert dues(after, steps, every) == sum(step == steps or due(step, every) for step in range(after + 1, steps + 1))


def test_a_tenth_between_checkpoints_or_as_the_manifest_says() -> None:
    assert save_interval(spec("vae", 95)) == 10
    assert save_interval(spec("vae", 95, checkpoints={"every": {"steps": 7}})) == 7
    assert save_interval(spec("vae", 95, checkpoints={"every": {"minutes": 7}})) is None
