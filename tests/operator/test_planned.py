"""`status.plan` says what was planned, what came of it, and what lies outside."""

from __future__ import annotations

import json
from typing import Any

from gentrain_operator.decide import Observed, decide
from gentrain_operator.kube.resource import Object
from gentrain_operator.rayjob import frozen
from tests.operator.test_decide import IMAGE, NOW, at, job, running
from tests.operator.test_pricing import READY
from trainjobs.api.job import Spec
from trainjobs.api.status import Status
from trainjobs.plan.forecast import ANNOTATION, Forecast, text

GIB = 2**30
POOLS = {"a": {"metadata": {"name": "a"}, "spec": {"accelerator": {"perNode": 8}, "price": {"usdPerNodeHour": "8"}}}}


def planned(**way: Any) -> Object:
    wanted = job(compute={"profiles": ["a"], "gpusPerWorker": 4, "workers": 2})
    size = Spec.model_validate(wanted["spec"]).training.batch.global_
    ranks = 2 * Spec.model_validate(wanted["spec"]).compute.each
    made = {
        "nodes": "a",
        "ranks": ranks,
        "stage": 1,
        "micro": size // ranks,
        "memory": GIB,
        "seconds": (0.1, 0.2),
        "usd": (1.0, 4.0),
        **way,
    }
    wanted["metadata"]["annotations"] = {ANNOTATION: text([Forecast(**made)])}
    return {**wanted, "status": decide(Observed(wanted, profiles=POOLS), NOW, IMAGE).status}


def report(step: int, seconds: float, **more: Any) -> Object:
    return {"step": step, "spent": {"steps": seconds}, "stage": 1, "device": "cuda", "memoryBytes": GIB, "updatedAt": 1767268800, **more}


def looked(wanted: Object, told: Object | None, minutes: float = 1, **child: Any) -> Object:
    status = decide(Observed(wanted, [running(rayClusterStatus=READY, **child)], POOLS, report=told), at(minutes), IMAGE).status
    assert status is not None
    Status.model_validate(status)
    return status


def test_it_is_beside_what_was_measured() -> None:
    plan = looked(planned(), report(10, 1.5))["plan"]
    assert plan["predicted"] == {"memoryBytes": GIB, "stepSeconds": "0.1 to 0.2", "usd": "1.00 to 4.00"}
    assert plan["measured"] == {"memoryBytes": GIB, "stepSeconds": "0.15"}
    assert "missed" not in plan


def test_a_miss_is_told_and_untold_when_it_is_over() -> None:
    wanted = planned()
    first = looked(wanted, report(10, 5.0, memoryBytes=2 * GIB))
    assert first["plan"]["missed"] == (
        "memory 1.00 GiB foreseen, 2.00 GiB measured: above it by more than 15%; "
        "time 100 to 200 ms a step foreseen, 500 ms measured: above the range"
    )
    later = looked({**wanted, "status": first}, report(100, 15.0))
    assert "missed" not in later["plan"]


def test_a_cost_below_the_range_is_no_miss_before_the_end() -> None:
    wanted = planned(usd=(3.0, 4.0))
    running_ = looked(wanted, report(10, 1.5), 6)
    assert (running_["cost"]["usd"], running_["plan"].get("missed")) == ("0.80", None)
    ended = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": "2026-01-01T12:07:00Z"}
    done = looked({**wanted, "status": running_}, None, 8, **ended)
    assert done["phase"] == "Succeeded"
    assert done["plan"]["missed"].startswith("cost $3.00 to $4.00 foreseen, $0.93 measured: below the range")
    assert done["plan"]["measured"] == running_["plan"]["measured"], "nobody reports any more"


def test_another_way_a_cpu_and_nonsense_are_not_compared() -> None:
    assert "predicted" not in looked(planned(stage=2), report(10, 1.5))["plan"]
    assert "memoryBytes" not in looked(planned(), report(10, 1.5, device="cpu"))["plan"]["measured"]
    for spent in (None, {}, {"steps": True}, {"steps": "1"}, {"steps": float("nan")}, {"steps": -1}):
        assert "stepSeconds" not in looked(planned(), report(10, 0, spent=spent))["plan"]["measured"]
    wanted = planned()
    wanted["metadata"]["annotations"] = {ANNOTATION: "{"}
    assert "predicted" not in looked(wanted, report(10, 1.5))["plan"]


def test_the_trainer_is_told_what_was_planned_and_nothing_else_of_the_annotations() -> None:
    wanted = planned()
    wanted["metadata"]["annotations"]["other"] = "x"
    spec = Spec.model_validate(wanted["spec"])
    assert list(json.loads(frozen(wanted, spec))["metadata"]["annotations"]) == [ANNOTATION]
    wanted["metadata"]["annotations"] = {"other": "x", ANNOTATION: "nonsense"}
    assert "annotations" not in json.loads(frozen(wanted, spec))["metadata"]
