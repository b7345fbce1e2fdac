"""What has failed a job rests: how long, for whom, and that it comes back. Everything runs on a clock of the test's own."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from gentrain_operator import resting
from gentrain_operator.decide import Observed, decide
from gentrain_operator.diagnose import Failure
from gentrain_operator.rayjob import rayjob
from tests.operator.test_decide import NOW, ONE, UNSCHEDULABLE, at, child, decided, failed, job, pod, profile, running, seen
from tests.operator.test_rayjob import spec as job_spec
from trainjobs.api.profile import ProfileSpec
from trainjobs.api.status import Status as StatusModel

BOTH = profile("spot", capacity="spot") | profile("sure")
TWO: dict[str, Any] = {
    "compute": {"profiles": ["spot", "sure"], "gpusPerWorker": 0},
    "profiles": profile("spot", capacity="spot") | profile("sure"),
}
ON_SPOT = {**ONE, "plan": {"profile": "spot"}}
LOST = {"message": "Ray head pod not found."}
TAKEN = [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]


def profiles_of(status: Any) -> list[str]:
    """Which profile the next attempts would take, at these minutes from now."""
    free = {**status, "retryAt": None, "ended": status["attempts"]}
    return [decided(seen(free, **TWO), at(minutes)).status["plan"]["profile"] for minutes in (0, 10, 20, 60)]  # type: ignore[index]


def test_a_profile_without_a_node_gives_way_the_first_time_and_is_preferred_again_after_its_rest() -> None:
    ended = decided(seen(ON_SPOT, [child()], pods=[pod(conditions=UNSCHEDULABLE)], **TWO)).status
    assert ended is not None
    (rest,) = ended["profiles"]
    assert (rest["name"], rest["restsUntil"], rest["rests"]) == ("spot", "2026-01-01T12:15:00Z", 1)
    assert "GTJ0202" in rest["why"]
    assert "Profile spot rests until 2026-01-01T12:15:00Z" in str(ended["conditions"])
    assert profiles_of(ended) == ["sure", "sure", "spot", "spot"]


def test_patience_is_a_field_of_the_profile() -> None:
    patient = {**TWO, "profiles": profile("spot", unschedulableSeconds=7200) | profile("sure")}
    waits = decided(seen(ON_SPOT, [child()], pods=[pod(conditions=UNSCHEDULABLE)], **patient)).status
    assert waits is not None
    assert waits.get("ended") != 1


def test_two_attempts_without_a_checkpoint_are_reason_to_rest_and_one_with_progress_between_is_none() -> None:
    first = decided(seen(ON_SPOT, [failed(1, **LOST)], **TWO)).status
    assert first is not None
    assert "profiles" not in first
    second = decided(seen({**first, "attempts": 2}, [failed(2, **LOST)], **TWO)).status
    assert second is not None
    assert [one["name"] for one in second["profiles"]] == ["spot"]
    moved_on = {**first, "attempts": 2, "checkpoint": {"uri": "u", "step": 9}}
    third = decided(seen(moved_on, [failed(2, **LOST)], **TWO)).status
    assert third is not None
    assert "profiles" not in third


def test_a_job_with_one_profile_rests_from_nothing() -> None:
    one = {"compute": {"profiles": ["spot"], "gpusPerWorker": 0}, "profiles": profile("spot", capacity="spot")}
    status: Any = ON_SPOT
    for attempt in range(1, 5):
        status = decided(seen({**status, "attempts": attempt}, [failed(attempt, **LOST)], **one)).status
    assert "profiles" not in status


def test_three_reclaims_within_an_hour_demote_a_spot_profile_and_three_within_a_day_do_not() -> None:
    def reclaimed(minutes: list[float], name: str = "spot") -> Any:
        status: Any = {**ON_SPOT, "plan": {"profile": name}}
        for attempt, when in enumerate(minutes, 1):
            status = {**status, "attempts": attempt, "checkpoint": {"uri": "u", "step": attempt}}
            status = decided(seen(status, [failed(attempt)], pods=[pod(attempt, conditions=TAKEN)], **TWO), at(when)).status
        return status

    assert reclaimed([0, 20, 50])["profiles"][0]["restsUntil"] == "2026-01-01T13:05:00Z"
    assert "restsUntil" not in reclaimed([0, 20, 70])["profiles"][0]
    assert "profiles" not in reclaimed([0, 20, 50], "sure"), "an on-demand node that is taken back says nothing of its profile"


def test_each_rest_is_twice_the_last_up_to_four_hours_and_forgotten_four_hours_later() -> None:
    status: Any = {}
    now, lengths = NOW, []
    for _ in range(7):
        (entry,) = resting.rested(status, "a", "why", now)
        status = {"profiles": [entry]}
        until = datetime.datetime.fromisoformat(entry["restsUntil"])
        lengths.append((until - now).total_seconds() / 60)
        assert not resting.awake(status, "a", until - datetime.timedelta(seconds=1))
        assert resting.awake(status, "a", until)
        now = until
    assert lengths == [15, 30, 60, 120, 240, 240, 240]
    (entry,) = resting.rested(status, "a", "why", now + datetime.timedelta(hours=5))
    assert entry["rests"] == 1


def test_a_clock_that_was_set_back_does_not_make_a_rest_of_years() -> None:
    status = {"profiles": resting.rested({}, "a", "why", NOW + datetime.timedelta(days=900))}
    assert resting.awake(status, "a", NOW)


def lemon(status: Any, node: str, hours: float = 0, class_: Any = "Infrastructure") -> Any:
    failure = Failure("GTJ0213", class_, "lost", node=node)
    flags = {"spot": False, "worn": False, "moved": False, "others": False}
    return {**status, **resting.learned(status, "a", failure, NOW + datetime.timedelta(hours=hours), **flags)}


def test_a_node_that_two_failed_attempts_name_is_avoided_for_a_day() -> None:
    once = lemon({}, "n1")
    assert resting.avoided(once, NOW) == []
    twice = lemon(lemon(once, "n2", 1), "n1", 2)
    assert resting.avoided(twice, NOW + datetime.timedelta(hours=2)) == ["n1"]
    assert resting.avoided(twice, NOW + datetime.timedelta(hours=25)) == ["n1"]
    assert resting.avoided(twice, NOW + datetime.timedelta(hours=27)) == []
    assert resting.avoided(lemon(lemon({}, "n1"), "n1", 30), NOW + datetime.timedelta(hours=30)) == [], "two within a day"
    assert lemon({}, "n1", class_="Preemption") == {}, "machines that are taken back are not broken"
    many: Any = {}
    for number in range(40):
        many = lemon(many, f"n{number}")
    assert len(many["avoidedNodes"]) == 16


_ZONE, _BIG = {"key": "zone", "operator": "In", "values": ["a"]}, {"key": "big", "operator": "Exists"}
_TERMS = {"nodeSelectorTerms": [{"matchExpressions": [_ZONE]}, {"matchExpressions": [_BIG]}]}


@pytest.mark.parametrize("affinity", [None, {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _TERMS}}])
def test_no_pod_goes_to_an_avoided_node_whatever_the_job_wishes_beside_it(affinity: Any) -> None:
    spec = job_spec(**({"pod": {"affinity": affinity}} if affinity else {}))
    made = rayjob(job(), spec, ProfileSpec(), 1, "image", ["n1", "n2"])["spec"]["rayClusterSpec"]
    off = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["n1", "n2"]}
    for group in (made["headGroupSpec"], made["workerGroupSpecs"][0]):
        node = group["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert all(off in term["matchExpressions"] for term in node["nodeSelectorTerms"])
    assert "n1" not in str(rayjob(job(), spec, ProfileSpec(), 1, "image"))


def test_the_next_attempt_keeps_off_the_nodes_of_the_status() -> None:
    status = {"attempts": 2, "ended": 2, "avoidedNodes": [{"name": "n1", "failures": 2, "since": "2026-01-01T11:00:00Z"}]}
    assert "n1" in str(decided(seen(status)).create[1])


def returned(minutes: float, step: int, *, wants: bool = True, resting_until: str = "2026-01-01T12:15:00Z", on: str = "sure") -> Any:
    """An attempt on the second profile that has just told of a checkpoint."""
    compute = {**TWO["compute"], "return": wants}
    status = {**ONE, "plan": {"profile": on}, "profiles": [{"name": "spot", "restsUntil": resting_until, "rests": 1}]}
    status |= {"checkpoint": {"uri": "u", "step": 50}}
    told = {"step": step, "checkpoint": {"step": step, "uri": "u"}}
    return decided(seen(status, [running()], report=told, compute=compute, profiles=BOTH), at(minutes))


def test_a_job_goes_back_to_the_profile_that_it_prefers_at_its_next_checkpoint() -> None:
    ended = returned(20, 60).status
    assert (ended["ended"], ended["checkpoint"]["step"]) == (1, 60)
    assert "gave its machines back for those of spot" in ended["message"]
    assert profiles_of({**ended, "attempts": 1})[2] == "spot"
    assert [one["name"] for one in ended["profiles"]] == ["spot"], "to go back is no fault of the profile that it was on"


@pytest.mark.parametrize(
    "why_not",
    [
        {"minutes": 10, "step": 60},  # it still rests
        {"minutes": 20, "step": 50},  # no new checkpoint
        {"minutes": 20, "step": 60, "wants": False},
        {"minutes": 20, "step": 60, "on": "spot"},
    ],
)
def test_it_stays_where_it_is_otherwise(why_not: Any) -> None:
    assert returned(**why_not).status.get("ended", 0) == 0


def test_a_node_with_a_bad_accelerator_is_avoided_at_once_and_for_a_day() -> None:
    sick = {"n9": "AcceleratedHardwareReady is False: NvidiaXID79Error", "n1": "XIDErrors is True"}
    once = lemon({}, "n1")
    status: Any = {**once, **resting.noted(once, sick, NOW)}
    assert [(one["name"], one["failures"], one["why"]) for one in status["avoidedNodes"]] == [
        ("n1", 1, "XIDErrors is True"),
        ("n9", 0, "AcceleratedHardwareReady is False: NvidiaXID79Error"),
    ]
    assert resting.avoided(once, NOW, sick) == ["n1", "n9"]
    assert resting.avoided(status, NOW + datetime.timedelta(hours=23)) == ["n1", "n9"]
    assert resting.avoided(status, NOW + datetime.timedelta(hours=25)) == []
    assert resting.noted(status, {}, NOW) == {}, "nothing is written where nothing is bad"
    many = {f"n{number:02}": "bad" for number in range(20)}
    assert len(resting.noted({}, many, NOW)["avoidedNodes"]) == len(resting.avoided({}, NOW, many)) == resting.MOST


def test_the_next_attempt_keeps_off_them_and_the_status_says_why() -> None:
    compute = {"gpusPerWorker": 1, "profiles": ["gpu"]}
    profiles = {"gpu": {"metadata": {"name": "gpu"}, "spec": {"accelerator": {"type": "l4", "perNode": 1}}}}
    seen = Observed(job(compute=compute), profiles=profiles, sick={"n9": "XIDErrors is True"})
    decision = decide(seen, NOW, "image")
    assert decision.status is not None
    assert decision.status["avoidedNodes"][0]["why"] == "XIDErrors is True"
    assert StatusModel.model_validate(decision.status)
    workers = decision.create[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    terms = workers["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["n9"]} in terms[0]["matchExpressions"]
