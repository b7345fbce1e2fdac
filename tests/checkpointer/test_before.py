"""What a run that goes on says of what has changed since its checkpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job, Spec
from trainjobs.checkpointer.before import Before, account, changes, named
from trainjobs.data.origin import Origin

DATA = Origin("builtin:digits", 1797, 0, "d", {})
CHANGED = ["training.seed 0 -> 1"]
BEST = ["checkpoints.keep.best.metric nothing -> heldout/loss", "checkpoints.keep.best.mode nothing -> min"]


def spec(**more: Any) -> Spec:
    manifest = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 9}, **more}
    whole = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": manifest}
    return Job.model_validate(whole).spec


def identity(of: Spec, **around: Any) -> dict[str, Any]:
    return {**account(of, DATA, "place", **around), "versions": {"code": "a"}}


def told(old: Spec, new: Spec) -> list[str]:
    return changes(Before(5, identity(old), {}), identity(new))


def test_nothing_is_told_of_the_same() -> None:
    assert told(spec(), spec()) == []


def test_what_is_around_and_versions_are_told() -> None:
    now = {**identity(spec(), threads=2), "versions": {"code": "b"}}
    assert changes(Before(5, identity(spec(), threads=1), {}), now) == ["threads 1 -> 2", "code a -> b"]


def test_a_version_that_nobody_wrote_down_is_not_told() -> None:
    now = {**identity(spec()), "versions": {"code": "a", "peft": "1.0"}}
    assert changes(Before(5, identity(spec()), {}), now) == []


def test_a_checkpoint_without_such_an_account_tells_nothing() -> None:
    assert changes(Before(5, {"versions": {"code": "b"}}, {}), identity(spec())) == []


@pytest.mark.parametrize(
    ("keep", "lines"),
    [({"last": 7}, []), ({"everySteps": 7, "pinned": [3]}, []), ({"best": {"metric": "heldout/loss"}}, BEST)],
)
def test_which_checkpoints_are_kept_has_no_effect_but_for_the_metric_that_is_measured(keep: dict[str, Any], lines: list[str]) -> None:
    assert told(spec(), spec(checkpoints={"keep": keep})) == lines


def test_a_checkpoint_that_does_not_fit_is_refused_with_what_changed() -> None:
    with pytest.raises(JobError) as caught, named(CHANGED):
        raise JobError("GTJ0208", "of another model", where="steps/5", why="it has 3 tensors", how="restore the manifest")
    assert caught.value.line() == (
        "GTJ0208 of another model (steps/5): it has 3 tensors; changed since: training.seed 0 -> 1. restore the manifest"
    )


@pytest.mark.parametrize(("code", "changed"), [("GTJ0209", CHANGED), ("GTJ0208", [])])
def test_other_refusals_stay_as_they_are(code: str, changed: list[str]) -> None:
    with pytest.raises(JobError) as caught, named(changed):
        raise JobError(code, "what", why="why")
    assert caught.value.line() == f"{code} what: why"


def test_options_of_users_code_are_told_and_not_kept() -> None:
    """They may hold anything, and a bucket of checkpoints has other readers than a manifest."""

    def custom(token: str) -> Spec:
        return spec(vae=None, custom={"objective": "mine:build", "options": {"api": {"token": token}}})

    (line,) = told(custom("hunter2"), custom("hunter3"))
    assert line.startswith("custom.options.api.token sha256:")
    assert "hunter" not in line
    assert "hunter" not in json.dumps(identity(custom("hunter2")))


def without(of: Spec, *names: str) -> dict[str, Any]:
    """An account of a version that did not have these fields."""
    found = identity(of)
    assert {*names} <= found["job"].keys()
    return {**found, "job": {name: value for name, value in found["job"].items() if name not in names}}


ADAM = {"optimizers": {"default": {"learningRate": 0.1}}, "steps": 9, "ema": {"decay": 0.9}}
GAN = {"vae": None, "gan": {}}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (("gan.loss.drift", "gan.loss.realLabel", "gan.generator.attention"), GAN),
        (("gan.regularization.orthogonal",), GAN),  # the whole part is new
        (("training.optimizers.default.momentum",), {"training": ADAM}),
        (("training.ema.warmup",), {"training": ADAM}),
    ],
)
def test_a_field_that_is_newer_than_the_checkpoint_is_told_only_when_it_is_not_its_default(
    fields: tuple[str, ...], parts: dict[str, Any]
) -> None:
    assert changes(Before(5, without(spec(**parts), *fields), {}), identity(spec(**parts))) == []
    other = spec(vae=None, gan={"loss": {"realLabel": 0.9}})
    assert changes(Before(5, without(spec(**GAN), "gan.loss.realLabel"), {}), identity(other)) == ["gan.loss.realLabel nothing -> 0.9"]


def test_what_had_been_left_out_is_told_with_its_defaults() -> None:
    plain = {"training": {"steps": 9}}
    assert told(spec(**plain), spec(training={"steps": 9, "ema": {}})) == [
        "training.ema.decay nothing -> 0.999",
        "training.ema.warmup nothing -> True",
    ]
    assert "training.optimizers.default.betas nothing -> [0.9, 0.999]" in told(spec(**plain), spec(training={**ADAM, "ema": None}))
    regularized = spec(vae=None, gan={"regularization": {"r1": {}}})
    assert told(spec(**GAN), regularized) == ["gan.regularization.r1.gamma nothing -> 10.0", "gan.regularization.r1.every nothing -> 16"]
