"""Which profile an attempt runs on: one that its workers fit, or a condition that says both sides and the way out."""

from __future__ import annotations

from typing import Any

import pytest

from gentrain_operator.conditions import Condition
from gentrain_operator.kube.resource import Object
from gentrain_operator.profiles import chosen
from gentrain_operator.quantity import amount
from gentrain_operator.rayjob import rayjob
from tests.operator.test_decide import NOW, ONE, UNSCHEDULABLE, child, decided, pod, profile, reasons, seen
from tests.operator.test_rayjob import JOB
from tests.operator.test_rayjob import spec as job_spec
from trainjobs.api.profile import ProfileSpec

FOUR, EIGHT, CPU = profile("four", accelerator={"perNode": 4}), profile("eight", accelerator={"perNode": 8}), profile("cpu")


def choice(profiles: dict[str, Object], gpus: int = 8, names: tuple[str, ...] = (), status: Object | None = None) -> Any:
    spec = job_spec(compute={"profiles": list(names or profiles), "gpusPerWorker": gpus, "workers": 1})
    return chosen(spec, profiles, status or {}, NOW)


def refusal(profiles: dict[str, Object], gpus: int = 8, names: tuple[str, ...] = ()) -> tuple[str, str]:
    found = choice(profiles, gpus, names)
    assert isinstance(found, Condition)
    assert (found.type, found.status) == ("Accepted", False)
    return found.reason, found.message


def test_eight_gpus_a_worker_on_nodes_of_four() -> None:
    reason, message = refusal(FOUR)
    assert reason == "PlanDoesNotFit"
    assert "GTJ0108 a worker wants 8 GPUs (compute.gpusPerWorker), and a node of ComputeProfile four has 4" in message
    assert "write gpusPerWorker: 4 and more workers, or name a profile of larger nodes" in message


def test_gpus_on_a_profile_of_cpus() -> None:
    reason, message = refusal(CPU, gpus=1)
    assert reason == "PlanDoesNotFit"
    assert "wants 1 GPUs (compute.gpusPerWorker), and the nodes of ComputeProfile cpu have 0 (accelerator.perNode)" in message
    assert "write gpusPerWorker: 0" in message


@pytest.mark.parametrize(
    ("node", "gpus", "words"),
    [
        ({"cpu": "7m"}, 1, "a worker's cpu on ComputeProfile a would be 1 of 8 parts of 7m (node.cpu), less than 1m"),
        ({"memory": "7Mi"}, 1, "a worker's memory on ComputeProfile a would be 1 of 8 parts of 7Mi (node.memory), less than 1Mi"),
        ({"cpu": "0"}, 0, "a worker's cpu on ComputeProfile a would be 0 (node.cpu)"),
    ],
)
def test_a_share_that_is_nothing(node: Object, gpus: int, words: str) -> None:
    reason, message = refusal(profile("a", accelerator={"perNode": 8}, node=node), gpus)
    assert reason == "PlanDoesNotFit"
    assert words in message


def test_a_profile_that_fits_is_taken_instead() -> None:
    assert choice(FOUR | EIGHT)[0] == "eight"
    assert choice(CPU | FOUR | EIGHT, gpus=4)[0] == "four"
    assert choice(FOUR | EIGHT, gpus=4)[0] == "four"
    broken = profile("broken", selector={"a b": "x"})
    assert choice(broken | EIGHT)[0] == "eight"


def test_of_those_that_fit_the_first_is_taken_that_does_not_rest() -> None:
    four, eight = (
        {"name": name, "restsUntil": until} for name, until in (("four", "2026-01-01T12:10:00Z"), ("eight", "2026-01-01T12:05:00Z"))
    )
    for resting, taken in (([], "four"), ([four], "eight"), ([eight], "four"), ([four, eight], "eight")):
        assert choice(FOUR | CPU | EIGHT, 4, status={"profiles": resting})[0] == taken


def test_a_job_that_names_no_profile_has_the_defaults() -> None:
    assert chosen(job_spec(compute={"gpusPerWorker": 8, "workers": 1}), FOUR, {}, NOW) == ("", ProfileSpec())


def test_what_is_missing_or_broken_is_told_with_what_does_not_fit() -> None:
    broken = profile("broken", tolerations=[{"key": "gpu", "operator": "Exists", "value": "true"}])
    assert refusal({}, names=("a", "b")) == (
        "ProfileNotFound",
        "GTJ0111 there is no ComputeProfile a or b. The job goes on by itself once one exists",
    )
    reason, message = refusal(broken)
    assert reason == "ProfileNotFound"
    assert "ComputeProfile broken is not usable: a toleration of gpu has operator Exists and a value (spec.tolerations[0])" in message
    reason, message = refusal(FOUR | broken, names=("four", "broken", "gone"))
    assert reason == "PlanDoesNotFit"
    for words in ("ComputeProfile four has 4", "ComputeProfile broken is not usable", "there is no ComputeProfile gone"):
        assert words in message


def test_a_job_that_does_not_fit_waits_and_starts_when_it_does() -> None:
    compute = {"profiles": ["four"], "gpusPerWorker": 8, "workers": 1}
    waits = decided(seen(None, profiles=FOUR, compute=compute))
    assert (waits.create, reasons(waits)["Accepted"]) == ((), "False PlanDoesNotFit")
    assert waits.status is not None
    assert waits.status["phase"] == "Pending"
    starts = decided(seen(waits.status, profiles=profile("four", accelerator={"perNode": 8}), compute=compute))
    assert len(starts.create) == 2
    assert reasons(starts)["Accepted"] == "True Accepted"


@pytest.mark.parametrize(("second", "phase"), [(EIGHT, "Recovering"), (CPU, "Provisioning")])
def test_an_attempt_without_nodes_is_given_up_only_for_a_profile_that_fits(second: dict[str, Object], phase: str) -> None:
    compute = {"profiles": ["four", *second], "gpusPerWorker": 4, "workers": 1}
    decision = decided(seen(ONE, [child()], pods=[pod(conditions=UNSCHEDULABLE)], compute=compute, profiles=FOUR | second))
    assert decision.status is not None
    assert decision.status["phase"] == phase


def test_a_toleration_says_its_operator_in_the_pods() -> None:
    tolerations = [{"key": "gpu", "value": "true"}, {"key": "pool", "effect": "NoSchedule"}]
    made = rayjob(JOB, job_spec(), ProfileSpec.model_validate({"tolerations": tolerations}), 1, "i")["spec"]["rayClusterSpec"]
    for group in (made["headGroupSpec"], *made["workerGroupSpecs"]):
        assert group["template"]["spec"]["tolerations"] == [
            {"key": "gpu", "value": "true", "operator": "Equal"},
            {"key": "pool", "effect": "NoSchedule", "operator": "Exists"},
        ]


@pytest.mark.parametrize("suffix", ["", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"])
def test_every_unit_that_a_profile_may_write_can_be_counted(suffix: str) -> None:
    node = profile("a", accelerator={"perNode": 2}, node={"cpu": f"9000{suffix}", "memory": f"9000000000{suffix}"})
    assert choice(node, gpus=1)[0] == "a"
    assert amount(f"2{suffix}") == 2 * amount(f"1{suffix}") > 0
