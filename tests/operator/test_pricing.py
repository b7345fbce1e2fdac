"""A job whose profile has no price is priced by its worker's node, once for an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from gentrain_operator import pricing
from gentrain_operator.decide import Observed, decide
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import NODES, Object, Resource
from gentrain_operator.kube.store import Key
from tests.operator.test_decide import IMAGE, NOW, at, job, running
from trainjobs.plan.prices import REGION, TYPE

KEY = Key("team", "train")
P5 = {TYPE: "p5.48xlarge", REGION: "us-east-1"}
READY = {"stateTransitionTimes": {"ready": "2026-01-01T12:00:00Z"}, "readyWorkerReplicas": 2, "head": {"podIP": "10.0.0.1"}}


def begun(**profile: Any) -> tuple[Object, dict[str, Object]]:
    """A job of two workers with four GPUs each, as it is when its first attempt was created."""
    pools = {"a": {"metadata": {"name": "a"}, "spec": {"accelerator": {"perNode": 8}, **profile}}}
    wanted = job(compute={"profiles": ["a"], "gpusPerWorker": 4, "workers": 2})
    return {**wanted, "status": decide(Observed(wanted, profiles=pools), NOW, IMAGE).status}, pools


def costs(wanted: Object, pools: dict[str, Object], node: dict[str, str] | None, minutes: float = 60) -> Object:
    """`status` after so many minutes of a whole cluster."""
    child = running(rayClusterStatus=READY)
    first = decide(Observed(wanted, [child], pools, node=node), NOW, IMAGE).status
    later = decide(Observed({**wanted, "status": first}, [child], pools), at(minutes), IMAGE).status
    assert later is not None
    return later


def test_an_hour_of_two_halves_of_a_node_costs_its_list_price() -> None:
    status = costs(*begun(), node=P5)
    assert (status["cost"]["usd"], status["cost"]["ratePerHourUSD"], status["summary"]["cost"]) == ("55.04", "55.04", "$55.04")
    assert status["cost"]["source"] == status["plan"]["priceSource"]
    assert status["cost"]["source"].endswith("us-east-1, 2026-07-20, p5.48xlarge")


def test_of_spot_nodes_it_is_at_most_that() -> None:
    status = costs(*begun(capacity="spot"), node=P5)
    assert status["summary"]["cost"] == "<= $55.04"
    assert status["cost"]["source"].startswith("at most, on demand: ")


def test_a_profile_s_price_is_kept_whatever_the_node_is() -> None:
    wanted, pools = begun(price={"usdPerNodeHour": "8", "source": "contract"})
    assert not pricing.unpriced(wanted)
    status = costs(wanted, pools, node=P5)
    assert (status["cost"]["usd"], status["cost"]["source"]) == ("8.00", "contract")


@pytest.mark.parametrize("node", [{TYPE: "m5.large", REGION: "us-east-1"}, {}])
def test_what_nobody_knows_is_said_and_not_asked_again(node: dict[str, str]) -> None:
    status = costs(*begun(), node=node)
    assert status["cost"]["usd"] == "unknown"
    assert status["cost"]["source"].startswith("unknown: ")
    assert not pricing.unpriced({"status": status})


def test_the_next_attempt_is_priced_anew() -> None:
    wanted, pools = begun()
    status = costs(wanted, pools, node=P5)
    status = {**status, "ended": 1, "finishedAt": None}
    again = decide(
        Observed({**wanted, "status": {key: value for key, value in status.items() if value is not None}}, [], pools), at(61), IMAGE
    )
    assert again.status is not None
    assert pricing.unpriced({"status": again.status})
    assert again.status["cost"]["usd"] == "55.04"


def test_a_budget_takes_the_list_price_of_a_type_and_region_that_the_profile_insists_on() -> None:
    for selector, phase in (({REGION: "us-east-1"}, "Provisioning"), ({}, "Pending")):
        spec = {"accelerator": {"perNode": 8}, "node": {"instanceType": "p5.48xlarge"}, "selector": selector}
        wanted = job(compute={"profiles": ["a"], "gpusPerWorker": 8}, budget={"maxUSD": "10"})
        status = decide(Observed(wanted, profiles={"a": {"metadata": {"name": "a"}, "spec": spec}}), NOW, IMAGE).status
        assert status is not None
        assert (status["phase"], "GTJ0132" in status["message"]) == (phase, phase == "Pending")


def worker(name: str, node: str = "", kind: str = "worker", attempt: str = "1") -> Object:
    labels = {"gentrain.dev/attempt": attempt, "ray.io/node-type": kind}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": node} if node else {}}


def test_whose_node_is_looked_at() -> None:
    wanted, _ = begun()
    pods = [worker("h", "cpu", "head"), worker("z", "old", attempt="0"), worker("a"), worker("c", "n2"), worker("b", "n1")]
    assert pricing.worker_s_node(wanted, running(), pods) == "n1"
    assert pricing.worker_s_node(wanted, running(), pods[:3]) is None
    wanted["status"]["plan"]["priceSource"] = "known"
    assert pricing.worker_s_node(wanted, running(), pods) is None


class Server:
    """Answers with labels, or an error, and counts."""

    def __init__(self, answer: dict[str, str] | ApiError) -> None:
        self.answer, self.asked = answer, 0

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        assert (resource, namespace, name) == (NODES, None, "n1")
        self.asked += 1
        if isinstance(self.answer, ApiError):
            raise self.answer
        return {"metadata": {"name": name, "labels": self.answer}}


@pytest.mark.parametrize("status", [403, 404])
def test_a_node_that_cannot_be_looked_at_is_no_fault(status: int) -> None:
    wanted, _ = begun()
    server = Server(ApiError(status, "Forbidden" if status == 403 else "NotFound", "n1"))
    assert pricing.Nodes(server).look(KEY, wanted, running(), [worker("a", "n1")]).worker == {}


def test_a_price_whose_write_was_refused_is_there_at_the_next_look_without_asking_again() -> None:
    """The job is as it was: without a price, and without an answer why."""
    (wanted, _), server = begun(), Server(P5)
    nodes = pricing.Nodes(server)
    assert nodes.wanted(KEY, wanted, running())
    assert nodes.look(KEY, wanted, running(), [worker("a", "n1")]).worker == P5
    assert not nodes.wanted(KEY, wanted, running())
    assert nodes.look(KEY, wanted, running(), []).worker == P5
    assert server.asked == 1


def test_the_node_is_looked_for_anew_in_the_next_attempt_and_for_a_job_that_is_made_anew() -> None:
    (wanted, _), server = begun(), Server(P5)
    nodes = pricing.Nodes(server)
    assert nodes.look(KEY, wanted, running(), [worker("a", "n1")]).worker == P5
    second = running()
    second["metadata"] = {**second["metadata"], "name": "train-a2", "labels": {"gentrain.dev/attempt": "2"}}
    assert nodes.wanted(KEY, wanted, second)
    nodes.forget(KEY)
    assert nodes.wanted(KEY, wanted, running())
    assert not nodes.wanted(KEY, wanted, None)


def test_while_the_cluster_comes_up_without_a_worker_on_a_node_it_is_looked_for_again() -> None:
    (wanted, _), server = begun(), Server(P5)
    nodes, starts = pricing.Nodes(server), running()
    starts["status"] = {"jobDeploymentStatus": "Initializing"}
    assert nodes.look(KEY, wanted, starts, [worker("a")]).worker is None
    assert nodes.wanted(KEY, wanted, starts)
    assert nodes.look(KEY, wanted, running(), [worker("a")]).worker is None, "it runs, and on no node that is known"
    assert not nodes.wanted(KEY, wanted, running())
    assert server.asked == 0
