"""What autoscalers say about a pod that fits no node, in their own words, and what it becomes in the status of a job."""

from __future__ import annotations

from typing import Any

import pytest

from gentrain_operator import autoscaler
from gentrain_operator.decide import Observed
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import EVENTS, Object
from gentrain_operator.pods import LOOKED, told
from gentrain_operator.waiting import Waiting, spoken_by, waiting
from tests.operator.test_decide import ONE, UNSCHEDULABLE, at, child, decided, job, pod, profile, reasons

KARPENTER, CA = "karpenter", "cluster-autoscaler"
_POOL = 'Failed to schedule pod, incompatible with nodepool "gpu", daemonset overhead={"pods":"1"}, '
TAINT = f"{_POOL}did not tolerate taint (taint=nvidia.com/gpu=present:NoSchedule)"
SOLD_OUT = (
    f"{_POOL}no instance type which met the scheduling requirements and had enough resources, had a required offering, "
    'requirements=karpenter.sh/capacity-type In [spot], resources={"cpu":"90"}'
)
LIMIT = 'Failed to schedule pod, all available instance types exceed limits for nodepool: "gpu"'
TOO_LARGE = f'{_POOL}no instance type has enough resources, resources={{"nvidia.com/gpu":"16"}}'
# What Karpenter 1.14.1 said with the NodePools of manifests/nodepools/eks-karpenter, of a worker on spot nodes when there were none.
_NONE_LEFT = (
    "no instance type had enough resources or had a required offering, requirements=gentrain.dev/pool In [gpu-spot], "
    "karpenter.k8s.aws/instance-gpu-count In [4], karpenter.k8s.aws/instance-gpu-name In [l4], "
    "karpenter.kwok.sh/kwoknodeclass In [default], karpenter.sh/capacity-type In [spot], "
    "karpenter.sh/initialized In [true], karpenter.sh/nodepool In [gentrain-gpu-spot], "
    "karpenter.sh/registered In [true], kubernetes.io/arch In [amd64], kubernetes.io/os In [linux], nvidia.com/gpu.present In [true], "
    'topology.kubernetes.io/zone In [zone-a], resources={"cpu":"46","memory":"168Gi","nvidia.com/gpu":"4","pods":"1"}'
)
_OTHER = (
    "incompatible requirements, key karpenter.sh/capacity-type, karpenter.sh/capacity-type In [spot] not in "
    "karpenter.sh/capacity-type In [on-demand]"
)
NONE_LEFT = f"Failed to schedule pod, {_NONE_LEFT}; {_OTHER}; {_OTHER}"
NONE_LEFT_LAST = f"Failed to schedule pod, {_OTHER}; {_OTHER}; {_OTHER}; {_NONE_LEFT}"
NONE_AT_ALL = "Failed to schedule pod, nodepool requirements filtered out all available instance types"
# Of no type of any pool is the scheduling requirement met: what is to be had does not matter.
NOT_MADE = (
    "Failed to schedule pod, no instance type met the scheduling requirements or had enough resources or had a required offering, "
    'requirements=nvidia.com/gpu.present In [true], resources={"nvidia.com/gpu":"4"}'
)
FIRST, AGAIN = "2026-01-01T11:00:00Z", "2026-01-01T11:10:00.5Z"


def event(reason: str, note: str, who: str, when: str = "2026-01-01T11:30:00Z") -> Object:
    return {"reason": reason, "note": note, "reportingController": who, "eventTime": when}


@pytest.mark.parametrize(
    ("reason", "note", "who", "kind"),
    [
        ("Nominated", "Pod should schedule on: nodeclaim/gpu-x7k2p", KARPENTER, "coming"),
        ("FailedScheduling", TAINT, KARPENTER, "impossible"),
        ("FailedScheduling", SOLD_OUT, KARPENTER, "sold out"),
        ("FailedScheduling", LIMIT, KARPENTER, "sold out"),
        ("FailedScheduling", NONE_LEFT, KARPENTER, "sold out"),
        ("FailedScheduling", NONE_LEFT_LAST, KARPENTER, "sold out"),
        ("FailedScheduling", NONE_AT_ALL, KARPENTER, "sold out"),
        ("FailedScheduling", NOT_MADE, KARPENTER, "impossible"),
        ("FailedScheduling", TOO_LARGE, KARPENTER, "impossible"),
        ("TriggeredScaleUp", "pod triggered scale-up: [{eks-gpu 0->1 (max: 4)}]", CA, "coming"),
        ("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 max node group size reached", CA, "sold out"),
        ("NotTriggerScaleUp", "pod didn't trigger scale-up: 2 in backoff after failed scale-up", CA, "sold out"),
        ("NotTriggerScaleUp", "pod didn't trigger scale-up: 2 node(s) didn't match Pod's node affinity/selector", CA, "impossible"),
        ("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 Insufficient nvidia.com/gpu device", CA, "impossible"),
        ("FailedScaleUp", "Node scale up in zones us-central1-a associated with this pod failed: GCE out of resources.", CA, "sold out"),
        ("FailedScaleUp", "Node scale up in zones us-central1-a associated with this pod failed: GCE quota exceeded.", CA, "sold out"),
    ],
)  # fmt: skip
def test_words_of_each_autoscaler(reason: str, note: str, who: str, kind: str) -> None:
    word = autoscaler.last([event(reason, note, who)])
    assert word is not None
    assert (word.kind, word.who) == (kind, who)


FORGOTTEN = (
    f"{_POOL}no instance type which had enough resources and the required offering met the scheduling requirements, "
    'requirements=karpenter.k8s.aws/instance-gpu-name In [l4], resources={"cpu":"46"}'
)


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ([], "impossible"),
        ([event("Nominated", "nodeclaim/a", KARPENTER, FIRST)], "sold out"),
        ([event("TriggeredScaleUp", "g 0->1", CA, FIRST)], "impossible"),
    ],
    ids=["never promised", "promised", "promised by another"],
)
def test_a_node_that_was_promised_and_is_refused_is_sold_out(before: list[Object], kind: str) -> None:
    """Karpenter's own words once the cloud had none of the only type that fits: those of a pod that no type can hold."""
    word = autoscaler.last([*before, event("FailedScheduling", FORGOTTEN, KARPENTER)])
    assert word is not None
    assert (word.kind, word.said) == (kind, FORGOTTEN)


def test_the_scheduler_is_no_autoscaler() -> None:
    assert autoscaler.last([event("FailedScheduling", "0/3 nodes are available", "default-scheduler")]) is None


def test_what_was_said_last_counts_however_its_time_is_written() -> None:
    old = {
        "reason": "Nominated",
        "note": "n",
        "deprecatedSource": {"component": KARPENTER},
        "deprecatedLastTimestamp": FIRST,
    }
    again = {
        **event("FailedScheduling", LIMIT, KARPENTER, "2026-01-01T10:00:00Z"),
        "series": {"lastObservedTime": AGAIN},
    }
    word = autoscaler.last([again, old])
    assert word is not None
    assert word.kind == "sold out"


def stuck(*events: Object, scheduler: str = "0/3 nodes are available") -> Waiting:
    waits = {"metadata": {"name": "w", "uid": "p1"}, "status": {"conditions": [{**UNSCHEDULABLE[0], "message": scheduler}]}}
    found = waiting([waits], child(), {"p1": events})
    assert found is not None
    return found


def test_a_node_on_its_way_is_no_fault() -> None:
    found = stuck(event("Nominated", "Pod should schedule on: nodeclaim/a", KARPENTER))
    assert (found.reason, found.message.startswith("GTJ")) == ("ScalingUp", False)
    assert "nodeclaim/a" in found.message


def test_no_capacity_and_no_fit_say_both_sides_and_the_field() -> None:
    sold_out = stuck(event("FailedScheduling", LIMIT, KARPENTER))
    assert sold_out.reason == "NoCapacity"
    assert sold_out.message.startswith("GTJ0201 no capacity for pod w: ")
    assert "exceed limits" in sold_out.message
    assert "0/3 nodes are available" in sold_out.message
    unfit = stuck(event("FailedScheduling", TAINT, KARPENTER))
    assert unfit.message.startswith("GTJ0202 pod w fits no node, and none that karpenter can make: ")
    assert unfit.message.endswith("Look at the profile's tolerations, or pool")
    assert stuck(scheduler="3 Insufficient nvidia.com/gpu").message.endswith("Look at the profile's node and accelerator.perNode")


def test_of_several_pools_the_sold_out_one_is_named() -> None:
    found = stuck(event("FailedScheduling", NONE_LEFT_LAST, KARPENTER))
    assert found.message.startswith("GTJ0201 no capacity for pod w: no instance type had enough resources or had a required offering, ")


def test_while_a_node_comes_for_one_pod_the_others_are_not_given_up() -> None:
    """Karpenter speaks of a pod some tenths of a second after the scheduler, and of a large group not all are asked for."""
    many: list[Object] = [
        {"metadata": {"name": f"w{n}", "uid": f"u{n}"}, "status": {"conditions": UNSCHEDULABLE}} for n in range(LOOKED + 1)
    ]
    coming = event("Nominated", "Pod should schedule on: nodeclaim/a", KARPENTER)
    for heard in (many[:1], many[1:2], many[:LOOKED]):
        found = waiting(many, child(), {one["metadata"]["uid"]: [coming] for one in heard})
        assert found is not None
        assert found.reason == "ScalingUp"
    refused = {"u0": [coming], "u2": [event("FailedScheduling", LIMIT, KARPENTER)]}
    told_no = waiting(many, child(), refused)
    assert told_no is not None
    assert told_no.reason == "NoCapacity"
    silent = waiting(many, child(), {})
    assert silent is not None
    assert silent.reason == "Unschedulable"


def moment(seconds: float) -> str:
    return f"{at(seconds / 60):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(("pool", "grace"), [("karpenter", 60), (None, 5)])
def test_before_an_autoscaler_has_had_its_say_nothing_is_said_to_fit_no_node(pool: str | None, grace: int) -> None:
    """Karpenter gathers pods for up to ten seconds; where no profile says that nodes are made, a few seconds do for its usual one."""
    cloud = {"provider": "aws", "pool": pool} if pool else {}
    gpus = profile("a", accelerator={"type": "l4", "perNode": 4}, **cloud)
    waits = pod(conditions=[{**UNSCHEDULABLE[0], "lastTransitionTime": moment(3)}])
    waits["metadata"]["uid"] = "p1"

    def look(seconds: float, *events: Object) -> tuple[str, str]:
        asked = job({**ONE, "plan": {"profile": "a"}}, compute={"profiles": ["a"], "gpusPerWorker": 1})
        seen = Observed(asked, [child(created=moment(0))], gpus, [waits], told={"p1": events})
        decision = decided(seen, at(seconds / 60))
        assert decision.status is not None
        return reasons(decision)["ResourcesReady"], decision.status["message"]

    name = waits["metadata"]["name"]
    early = f"pod {name} waits for a node since {moment(3)}: no autoscaler has spoken of it yet; the scheduler: 0/3 nodes are available"
    assert look(3) == look(3 + grace - 1) == ("False ScalingUp", early)
    assert look(3 + grace) == ("False Unschedulable", f"GTJ0202 pod {name} fits no node: 0/3 nodes are available")
    assert look(4, event("FailedScheduling", TAINT, KARPENTER, moment(4)))[0] == "False Unschedulable"
    assert look(4, event("FailedScheduling", LIMIT, KARPENTER, moment(4)))[0] == "False NoCapacity"
    assert "is on its way" in look(4, event("Nominated", "Pod should schedule on: nodeclaim/a", KARPENTER, moment(4)))[1]
    waits["status"]["conditions"][0]["message"] = 'persistentvolumeclaim "runs" not found'
    assert look(3)[0] == "False Unschedulable", "a volume that is missing is brought by nobody who makes nodes"


def test_a_pod_that_no_autoscaler_spoke_of_in_time_is_told_before_those_that_came_later() -> None:
    later, first = ({"metadata": {"name": f"w{n}", "uid": f"u{n}"}, "status": {}} for n in (1, 2))
    later["status"] = {"conditions": [{**UNSCHEDULABLE[0], "lastTransitionTime": moment(50)}]}
    first["status"] = {"conditions": [{**UNSCHEDULABLE[0], "lastTransitionTime": moment(0)}]}
    found = waiting([later, first], child(), {}, spoken_by("nap", at(70 / 60)))
    assert found is not None
    assert (found.reason, found.message[:14]) == ("Unschedulable", "GTJ0202 pod w2")


def stuck_job(minutes: float, *events: Object) -> Any:
    two = profile("a") | profile("b")
    waits = pod(conditions=UNSCHEDULABLE)
    waits["metadata"]["uid"] = "p1"
    told_ = {"p1": events}
    status = {**ONE, "plan": {"profile": "a"}}
    asked = job(status, compute={"profiles": ["a", "b"], "gpusPerWorker": 0})
    return decided(Observed(asked, [child(created="2026-01-01T12:00:00Z")], two, [waits], told=told_), at(minutes))


def test_no_capacity_gives_way_after_a_minute_in_the_autoscaler_s_words() -> None:
    said = event("FailedScheduling", LIMIT, KARPENTER, "2026-01-01T12:00:20Z")
    assert reasons(stuck_job(0.9, said))["ResourcesReady"] == "False NoCapacity"
    ended = stuck_job(1.1, said).status
    assert ended["failure"]["code"] == "GTJ0201"
    assert "exceed limits" in ended["failure"]["detail"]
    assert [one["name"] for one in ended["profiles"]] == ["a"]


def test_a_node_on_its_way_is_given_the_patience_from_when_it_was_asked_for() -> None:
    said = event("TriggeredScaleUp", "pod triggered scale-up: [{g 0->1 (max: 4)}]", CA, "2026-01-01T12:08:00Z")
    assert reasons(stuck_job(17, said))["ResourcesReady"] == "False ScalingUp"
    ended = stuck_job(18.5, said).status
    assert (ended["profiles"][0]["name"], ended["failure"]["code"]) == ("a", "GTJ0202")
    assert "is on its way" in ended["failure"]["detail"]
    assert stuck_job(10.5).status["profiles"][0]["name"] == "a", "without a word, ten minutes"


def test_events_are_asked_for_by_pod_and_a_role_without_them_is_no_fault() -> None:
    asked: list[Any] = []

    class Server:
        refuse = False

        def list(self, resource: Any, namespace: str | None = None, *, fields: str = "", limit: int = 0) -> Object:
            if self.refuse:
                raise ApiError(403, "Forbidden", "no")
            asked.append((resource, namespace, fields))
            return {"items": [{"reason": "Nominated"}]}

    pods = [{"metadata": {"name": f"w{n}", "uid": f"u{n}"}, "status": {"conditions": UNSCHEDULABLE}} for n in range(9)]
    pods.append({"metadata": {"name": "fine", "uid": "f"}, "status": {}})
    assert told(Server(), "team", pods) == {f"u{n}": [{"reason": "Nominated"}] for n in range(LOOKED)}
    assert asked == [(EVENTS, "team", f"regarding.uid=u{n}") for n in range(LOOKED)]
    asked.clear()
    made = {"metadata": {"uid": "r"}, "status": {"jobDeploymentStatus": "Initializing"}}
    assert told(Server(), "team", [], made) == {"r": [{"reason": "Nominated"}]}
    assert told(Server(), "team", pods[-1:], made) == {}, "it has pods"
    assert told(Server(), "team", [], {"metadata": {"uid": "r"}}) == {}, "nobody has taken it up"
    assert asked == [(EVENTS, "team", "regarding.uid=r")]
    Server.refuse = True
    assert told(Server(), "team", pods) == {}


def test_events_of_the_older_api_say_the_same() -> None:
    """As `kubectl get events` and `gtj explain` read them."""
    old = {
        **{
            "involvedObject": {"uid": "p1"},
            "reason": "NotTriggerScaleUp",
            "message": "pod didn't trigger scale-up: 1 max node group size reached",
        },
        **{"source": {"component": CA}, "lastTimestamp": "2026-01-01T11:30:00Z"},
    }
    assert autoscaler.about([old]) == {"p1": [old]}
    word = autoscaler.last([old])
    assert word is not None
    assert (word.kind, word.who, word.at is not None) == ("sold out", CA, True)
