"""As which user pods run."""

from __future__ import annotations

import copy

import pytest

from gentrain_operator.identity import DEFAULT, RunAs, run_as, running_as
from gentrain_operator.kube.resource import Object
from gentrain_operator.rayjob import rayjob
from trainjobs.api.job import Spec
from trainjobs.api.profile import ProfileSpec

JOB: Object = {"apiVersion": "v", "kind": "k", "metadata": {"name": "job", "namespace": "team", "uid": "u1"}}


def made() -> Object:
    spec = Spec.model_validate({"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 10}})
    return rayjob(JOB, spec, ProfileSpec(), 1, "image")


def contexts(whole: Object) -> list[Object]:
    cluster = whole["spec"]["rayClusterSpec"]
    return [group["template"]["spec"]["securityContext"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_default_is_the_images_user() -> None:
    assert running_as(made(), DEFAULT) == made()
    assert [one["runAsUser"] for one in contexts(made())] == [1000, 1000]


def test_another_user_in_every_pod() -> None:
    before = made()
    kept = copy.deepcopy(before)
    for one in contexts(running_as(before, RunAs(5001, 6002))):
        assert (one["runAsUser"], one["runAsGroup"], one["fsGroup"], one["runAsNonRoot"]) == (5001, 6002, 6002, True)
    assert before == kept


def test_openshift_chooses_from_its_own_range() -> None:
    """A pod that names a user outside the namespace's range is refused there."""
    for one in contexts(running_as(made(), None)):
        assert one == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_what_the_chart_says() -> None:
    assert run_as("") is None
    assert run_as("1000660000:0") == RunAs(1000660000, 0)
    for wrong in ("0:0", "1000", "root:root", "1000:", "-1:5"):
        with pytest.raises(ValueError, match="root, 0, runs no jobs"):
            run_as(wrong)
