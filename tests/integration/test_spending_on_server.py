"""What a job has spent, on a real API server: waiting costs nothing, and what was spent keeps its price. tests/operator has the cases."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal

import pytest

from gentrain_operator.kube.resource import PROFILES, Object
from tests.cluster.at_work import Bench

pytestmark = pytest.mark.slow

UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}


def ago(minutes: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pool(bench: Bench, price: str) -> Object:
    spec = {"accelerator": {"perNode": 1}, "price": {"usdPerNodeHour": price}}
    name = f"pool-{bench.namespace}"
    return bench.client.create(
        PROFILES, None, {"apiVersion": PROFILES.api_version, "kind": PROFILES.kind, "metadata": {"name": name}} | {"spec": spec}
    )


def compute(profile: Object) -> Object:
    return {"profiles": [profile["metadata"]["name"]], "gpusPerWorker": 1, "workers": 2}


def usd(bench: Bench) -> Decimal:
    return Decimal(bench.status().get("cost", {}).get("usd") or 0)


def about(spent: Decimal, usd: int, rate: int) -> bool:
    """Whether it is that, and what is spent at a rate of so much an hour in the minutes that a busy machine takes to look."""
    return usd <= spent < usd + Decimal(rate) / 20


def test_five_hours_without_a_node_cost_nothing_and_end_nothing(bench: Bench) -> None:
    bench.apply(compute=compute(pool(bench, "98")), budget={"maxUSD": "400"}, activeDeadlineSeconds=3600)
    bench.rayjob("job-a1")
    bench.kuberay.initialize("job-a1", ago(300))
    for pod in bench.kuberay.pods("job-a1"):
        bench.kuberay.pod_status(pod["metadata"]["name"], {"phase": "Pending", "conditions": [UNSCHEDULABLE]})
    bench.until(lambda: bench.reason("ResourcesReady") == "Unschedulable")
    status = bench.status()
    assert (status["phase"], status["cost"]["usd"], status["attempts"]) == ("Provisioning", "0.00", 1)
    assert status.get("activeSeconds", 0) == 0
    bench.kuberay.run("job-a1", ready=ago(30))
    bench.until(lambda: usd(bench) != 0)
    assert about(usd(bench), 98, 196)  # half an hour of two workers


def test_a_budget_counts_when_the_profile_is_deleted(bench: Bench) -> None:
    profile = pool(bench, "10")
    bench.apply(compute=compute(profile), budget={"maxUSD": "20"})
    bench.rayjob("job-a1")
    bench.kuberay.initialize("job-a1", ago(70))
    bench.phase("Provisioning")
    bench.client.delete(PROFILES, None, profile["metadata"]["name"], uid=profile["metadata"]["uid"])
    bench.until(lambda: profile["metadata"]["name"] not in {one["metadata"]["name"] for one in bench.operator.stores.profiles.all()})
    bench.kuberay.run("job-a1", ready=ago(60))
    bench.until(lambda: bench.kuberay.rayjobs()["job-a1"]["spec"].get("suspend") is True)
    told = re.search(r"GTJ0212 ([0-9.]+) of 20\.00 USD are spent", bench.phase("Suspended")["message"])
    assert told
    assert about(Decimal(told[1]), 20, 20)


def test_another_price_prices_nothing_anew(bench: Bench) -> None:
    profile = pool(bench, "1")
    bench.apply(compute=compute(profile), budget={"maxUSD": "6"})
    bench.rayjob("job-a1")
    bench.kuberay.initialize("job-a1", ago(70))
    bench.kuberay.run("job-a1", ready=ago(60))
    bench.until(lambda: about(usd(bench), 2, 2))
    bench.client.merge(PROFILES, None, profile["metadata"]["name"], {"spec": {"price": {"usdPerNodeHour": "4"}}})
    bench.kuberay.lose_head("job-a1")
    bench.rayjob("job-a2")
    bench.kuberay.initialize("job-a2", ago(0))
    bench.kuberay.run("job-a2", ready=ago(0))
    bench.until(lambda: bench.status()["cost"]["ratePerHourUSD"] == "8.00")
    assert bench.status()["phase"] != "Failed"
    assert about(usd(bench), 2, 8)  # not 8: what was spent before keeps its price
