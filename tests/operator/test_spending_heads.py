"""What nodes that were held cost, heads included: of each pod from when it had a node."""

from __future__ import annotations

import datetime
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gentrain_operator import pricing
from gentrain_operator.decide import Observed, decide
from gentrain_operator.kube.resource import NODES, Object, Resource
from gentrain_operator.kube.store import Key
from gentrain_operator.served import Served
from tests.operator.test_decide import IMAGE, NOW, at, running
from tests.operator.test_pricing import READY, begun, worker
from tests.operator.test_spending import START, Life, compute, job, rayjob, stamp
from trainjobs.plan import prices
from trainjobs.plan.prices import REGION, TYPE


def pod(cluster: str, kind: str, minutes: float | None, attempt: int = 1) -> Object:
    """Of that RayCluster, on a node since then; None of one that fits nowhere."""
    labels = {"ray.io/cluster": cluster, "ray.io/node-type": kind, "gentrain.dev/attempt": str(attempt)}
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(minutes or 0)}
    stuck = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available", **since(0)}
    return {"metadata": {"name": kind, "labels": labels}, "status": {"conditions": [placed if minutes is not None else stuck]}}


def since(minutes: float) -> Object:
    return {"lastTransitionTime": stamp(minutes)}


def pool(usd: str, head: str = "0.20", **more: Any) -> Object:
    return {"spec": {"price": {"usdPerNodeHour": usd}, "head": {"price": {"usdPerHour": head}}, "accelerator": {"perNode": 1}, **more}}


def test_a_lost_worker_a_suspension_and_a_fallback_cost_the_sum_by_hand() -> None:
    life = Life(
        {"spot": pool("3", capacity="spot"), "dear": pool("8")}, compute=compute("spot", "dear", workers=2), budget={"maxUSD": "99"}
    )
    life.look(0)
    first = (pod("c1", "head", 1), pod("c1", "worker", 3), pod("c1", "worker", 4))
    life.look(5, rayjob(1, "Initializing", 0, rayClusterName="c1"), pods=first)
    whole = rayjob(1, "Running", 0, 10, rayClusterName="c1", jobStatus="RUNNING")
    life.look(11, whole, pods=first)
    lost = {**whole, "status": {**whole["status"], "rayClusterStatus": {**whole["status"]["rayClusterStatus"], "readyWorkerReplicas": 1}}}
    life.look(40, lost)  # KubeRay makes another one
    life.look(45, whole)
    life.spec["suspend"] = True
    life.look(70, whole)
    stopping = {
        **whole,
        "spec": {"suspend": True},
        "status": {**whole["status"], "jobDeploymentStatus": "Suspending", "endTime": stamp(70)},
    }
    life.look(71, stopping)
    stopped = rayjob(1, "Suspended", 0)
    life.look(90, {**stopped, "spec": {"suspend": True}})
    life.spec["suspend"] = False
    life.look(100, {**stopped, "spec": {"suspend": True}})
    again = (pod("c2", "head", 101), pod("c2", "worker", 102), pod("c2", "worker", 102))
    life.look(106, rayjob(1, "Running", 100, 105, rayClusterName="c2"), pods=again)
    gone = {"endTime": stamp(130), "message": "Ray head pod not found."}
    life.look(130, rayjob(1, "Failed", 100, 105, rayClusterName="c2", **gone), pods=again)
    # Its second attempt finds no node but for its head, and gives way to the other profile.
    life.look(131)
    alone = (pod("c3", "head", 132, 2), pod("c3", "worker", None, 2))
    waiting = rayjob(2, "Initializing", 131, rayClusterName="c3")
    life.look(132, waiting, pods=alone)
    moved = life.look(142, waiting, pods=alone)
    assert moved["phase"] == "Recovering"
    third = life.look(143)
    assert third["plan"]["profile"] == "dear"
    last = (pod("c4", "head", 144, 3), pod("c4", "worker", 150, 3), pod("c4", "worker", 151, 3))
    life.look(156, rayjob(3, "Running", 143, 155, rayClusterName="c4"), pods=last)
    ended = rayjob(3, "Complete", 143, 155, rayClusterName="c4", jobStatus="SUCCEEDED", endTime=stamp(210))
    done = life.look(211, ended, pods=last)
    assert done["phase"] == "Succeeded"
    workers = Fraction(3, 60) * (7 + 6 + 60 * 2 + 3 + 3 + 25 * 2) + Fraction(8, 60) * (5 + 4 + 55 * 2)
    heads = Fraction(20, 6000) * ((9 + 60) + (4 + 25) + 10 + (11 + 55))
    assert done["cost"]["usd"] == f"{float(workers + heads):.2f}"
    assert done["cost"]["headSeconds"] == 60 * (69 + 29 + 10 + 66)
    assert done["cost"]["workerSeconds"] == 60 * (189 + 119)
    assert done["cost"]["head"] == "head.price of the ComputeProfile"


def test_the_start_of_a_cluster_is_counted_once_however_often_it_is_seen() -> None:
    life = Life({"a": pool("60", "6")}, compute=compute("a"))
    life.look(0)
    pods = (pod("c", "head", 5), pod("c", "worker", 8))
    for minutes in (10, 11, 12, 13):
        status = life.look(minutes, rayjob(1, "Running", 0, 10, rayClusterName="c"), pods=pods)
    assert (status["cost"]["usd"], status["cost"]["ratePerHourUSD"]) == (f"{3 + 2 + (3 + 5) * 0.1:.2f}", "66.00")


def test_a_long_start_is_no_reason_to_suspend_a_job_before_its_cluster_is_whole() -> None:
    """Nothing would be left of it: a suspended cluster is gone before it was counted, and the job would begin again and again."""
    life = Life({"a": pool("60", "6")}, compute=compute("a"), budget={"maxUSD": "10"})
    life.look(0)
    pods = (pod("c", "head", 1), pod("c", "worker", 1))
    assert life.look(30, rayjob(1, "Initializing", 0, rayClusterName="c"), pods=pods)["phase"] == "Provisioning"
    status = life.look(31, rayjob(1, "Running", 0, 31, rayClusterName="c"), pods=pods)
    assert (status["phase"], status["cost"]["usd"]) == ("Suspended", "33.00")


def test_what_a_definition_of_before_does_not_keep_is_not_counted_again_and_again() -> None:
    base = Life({"a": pool("60")}, compute=compute("a"))
    base.look(0)
    child, pods = rayjob(1, "Running", 0, 10, rayClusterName="c"), (pod("c", "head", 5), pod("c", "worker", 8))
    for starts, usd in ((True, "4.02"), (False, "2.01")):
        told = decide(Observed(job(base.status, base.spec), (child,), base.profiles, pods, starts=starts), START.replace(minute=12), "i")
        assert told.status is not None
        assert (told.status["cost"]["usd"], told.status["cost"].get("startOf")) == (usd, "c" if starts else None)
    served = Served(lambda: {"properties": {"status": {"properties": {"cost": {"properties": {"usd": {}}}}}}})
    assert served.keeps("cost.startOf"), "a server that was not asked is no older one"
    served.look()
    assert served.keeps("cost.usd")
    assert not served.keeps("cost.startOf")


def test_a_head_without_a_price_costs_its_part_of_its_node() -> None:
    wanted, pools = begun(head={"cpu": "2", "memory": "4Gi"})
    p5 = {TYPE: "p5.48xlarge", REGION: "us-east-1"}
    node = {"labels": p5, "allocatable": {"cpu": "40", "memory": "16Gi"}}
    seen = pricing.priced(Observed(wanted, [running()], pools, node=p5, head=node))
    plan = seen.job["status"]["plan"]
    assert plan["headUsdPerHour"] == "13.760000", "a quarter of 55.04: its memory"
    assert plan["headPriceSource"].startswith("25% of ")
    child = running(rayClusterStatus=READY)
    first = decide(Observed(wanted, [child], pools, node=p5, head=node), NOW, IMAGE).status
    later = decide(Observed({**wanted, "status": first}, [child], pools), at(60), IMAGE).status
    assert later is not None
    assert (later["cost"]["usd"], later["cost"]["ratePerHourUSD"]) == ("68.80", "68.80")


def test_a_head_on_a_node_without_a_list_price_is_said_to_be_left_out() -> None:
    wanted, pools = begun(price={"usdPerNodeHour": "8"})
    seen = pricing.priced(Observed(wanted, [running()], pools, head={"labels": {TYPE: "m5.large", REGION: "us-east-1"}}))
    plan = seen.job["status"]["plan"]
    assert "headUsdPerHour" not in plan
    assert plan["headPriceSource"] == "unknown: no list price of m5.large in us-east-1"
    assert not pricing.headless(seen.job)
    status = decide(seen, NOW, IMAGE).status
    assert status is not None
    assert status["cost"]["head"] == plan["headPriceSource"]


class Server:
    def __init__(self) -> None:
        self.asked = list[str]()

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        assert (resource, namespace) == (NODES, None)
        self.asked.append(name)
        return {"metadata": {"name": name, "labels": {TYPE: name}}, "status": {"allocatable": {"cpu": "4"}}}


@pytest.mark.parametrize(("profile", "asked"), [({}, ["n1", "n2"]), ({"price": {"usdPerNodeHour": "8"}}, ["n2"])])
def test_whose_nodes_are_looked_at_once(profile: dict[str, Any], asked: list[str]) -> None:
    wanted, _ = begun(**profile)
    server, key = Server(), Key("team", "train")
    nodes = pricing.Nodes(server)
    for _ in range(2):
        found = nodes.look(key, wanted, running(), [worker("w", "n1"), worker("h", "n2", "head")])
    assert server.asked == asked
    assert found.head == {"labels": {TYPE: "n2"}, "allocatable": {"cpu": "4"}}
    assert prices.seen(found.worker, "on-demand").usd == ""


@given(
    price=st.integers(100, 2000), head=st.integers(1, 100), limit=st.integers(20, 200), grace=st.integers(15, 600), start=st.integers(0, 5)
)
@settings(max_examples=15)
def test_a_checkpoint_comes_before_the_limit_with_the_head_and_the_start_in_it(
    price: int, head: int, limit: int, grace: int, start: int
) -> None:
    """Of an operator that looks when it said that it would: what is spent when the job is told to save, and its grace, are within the
    budget, unless that was so at the first look."""
    life = Life({"a": pool(str(price), str(head), gracePeriodSeconds=grace)}, compute=compute("a"), budget={"maxUSD": str(limit)})
    life.look(0)
    pods, child = (pod("c", "head", 0), pod("c", "worker", 0)), rayjob(1, "Running", 0, start, rayClusterName="c")
    at, first = float(start), True
    while True:
        told = decide(Observed(job(life.status, life.spec), (child,), life.profiles, pods), START + datetime.timedelta(minutes=at), "i")
        life.status = told.status or life.status
        if told.suspend:
            break
        assert told.again is not None
        at, first = at + told.again / 60, False
    rate = Fraction(price + head, 3600)
    assert first or rate * (math.ceil(at * 60) + grace) <= limit + 2 * rate, (at, told.status)
