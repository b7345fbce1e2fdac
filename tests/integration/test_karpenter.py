"""Jobs on a cluster without a node: the real Karpenter makes what the workers of each cloud's pools ask for, by the NodePools that are
shipped, and its words are what a user reads where it cannot. KubeRay is played, nodes and pods are kwok's, the scheduler is Kubernetes'."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from gentrain_operator import waiting
from gentrain_operator.kube.resource import Object
from tests.cluster.at_work import Bench, Driver, report, until
from tests.cluster.autoscaled import AT, ZONE, Autoscaled, Capacity, offered, plain, pools
from tests.cluster.binaries import Unavailable, binary
from tests.cluster.control_plane import ControlPlane, control_plane

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# By the provider: its folder under manifests/nodepools, the profile on demand, the type of its nodes, and GPUs of one. The profile of spot
# nodes is called the same and -spot.
CLOUDS = {
    "aws": ("eks-karpenter", "karpenter-l4", "g6.12xlarge", 4),
    "azure": ("aks-nap", "nap-a100", "Standard_NC24ads_A100_v4", 1),
    "gcp": ("gke-standard", "standard-l4", "g2-standard-48", 4),
}
# What else there is to be had: a pool of which nothing is to be had at all is not named in what Karpenter says.
OTHERS = {"aws": "g5.xlarge", "azure": "Standard_NC4as_T4_v3", "gcp": "a2-highgpu-1g"}
# The operator gives an autoscaler without capacity a minute. Of three clouds, and in full, that is for GENTRAIN_SWEEP=all.
ALL = os.environ.get("GENTRAIN_SWEEP") == "all"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, kuberay_crds: str, say: Callable[[str], None]) -> Iterator[ControlPlane]:
    """One of its own: nodes of a cluster are everybody's."""
    try:
        with control_plane(tmp_path_factory.mktemp("karpenter"), say) as running:
            running.define(kuberay_crds)
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def karpenter(cluster: ControlPlane, say: Callable[[str], None]) -> Iterator[Autoscaled]:
    try:
        made = Autoscaled(cluster, say)
    except Unavailable as reason:
        pytest.skip(str(reason))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def bench(cluster: ControlPlane, karpenter: Autoscaled, namespace: str, driver: Driver) -> Iterator[Bench]:
    running = Bench(cluster, namespace, driver)
    yield running
    running.stop()
    cluster.kubectl("delete", "pods", "--all", "-n", namespace, "--force", "--grace-period=0")
    karpenter.clear()


def given(bench: Bench, karpenter: Autoscaled, provider: str, *capacities: Capacity, others: bool = True, gpus: str | None = None) -> None:
    """The provider's profiles, of one zone's nodes, and its pools, and what there is to be had there of its GPU nodes; of `others`, all."""
    folder, _, kind, _ = CLOUDS[provider]
    assert karpenter.nodes() == {}
    for path in sorted((ROOT / "manifests" / "nodepools" / folder).glob("profile-*.yaml")):
        profile = yaml.safe_load(path.read_text())
        profile["spec"]["selector"] = {AT: ZONE}
        bench.cluster.kubectl("apply", "-n", bench.namespace, "-f", "-", stdin=json.dumps(profile))
    types = [offered(provider, kind, *capacities), offered(provider, OTHERS[provider], "spot", "on-demand")]
    karpenter.offer(pools(ROOT / "manifests" / "nodepools" / folder, gpus=gpus), [plain(), *types])


def compute(provider: str, *profiles: str, workers: int = 2) -> Object:
    return {"compute": {"profiles": list(profiles), "workers": workers, "gpusPerWorker": CLOUDS[provider][3]}}


def pending(bench: Bench, rayjob: str) -> None:
    """KubeRay makes an attempt's pods, now."""
    bench.rayjob(rayjob)
    bench.kuberay.initialize(rayjob, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def bound(bench: Bench, rayjob: str, count: int) -> dict[str, str]:
    """Where the pods of an attempt run, once all do."""

    def placed() -> dict[str, str] | None:
        found = {
            one["metadata"]["name"]: one["spec"].get("nodeName", "")
            for one in bench.kuberay.pods(rayjob)
            if one["status"]["phase"] == "Running"
        }
        return found if len(found) == count else None

    found: dict[str, str] = bench.until(placed, 60)
    return found


class Watched:
    """What `kubectl get gtj -w` prints."""

    def __init__(self, bench: Bench, path: Path) -> None:
        self._path = path
        options = [f"--kubeconfig={bench.cluster.kubeconfig}", "-n", bench.namespace, "get", "gtj", "-w"]
        with open(path, "wb") as out:
            self._process = subprocess.Popen([binary("kubectl"), *options], stdout=out, stderr=out)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def seen(self) -> str:
        return self._path.read_text()


@pytest.fixture
def watched(bench: Bench, tmp_path: Path) -> Iterator[Watched]:
    """Printed in the end: the recordings of docs/how-to/profiles.md are these, with GENTRAIN_SWEEP=all and -s."""
    running = Watched(bench, tmp_path / "watched")
    yield running
    running.end()
    print(f"\n{datetime.now(UTC):%Y-%m-%d}", running.seen(), bench.status()["message"], sep="\n")


@pytest.mark.parametrize("provider", CLOUDS)
def test_a_job_makes_exactly_its_nodes_appear_run_and_go(bench: Bench, karpenter: Autoscaled, watched: Watched, provider: str) -> None:
    _, profile, kind, _ = CLOUDS[provider]
    given(bench, karpenter, provider, "spot", "on-demand")
    bench.apply(**compute(provider, profile))
    pending(bench, "job-a1")
    where, nodes = bound(bench, "job-a1", 3), karpenter.nodes()
    told = sorted((labels["node.kubernetes.io/instance-type"], labels["karpenter.sh/capacity-type"]) for labels in nodes.values())
    assert told == sorted([(kind, "on-demand"), (kind, "on-demand"), ("m7i.4xlarge", "on-demand")])
    assert nodes[where["job-a1-head"]]["gentrain.dev/pool"] == "cpu"
    assert where["job-a1-worker-0"] != where["job-a1-worker-1"]
    bench.driver.report = report(5)
    bench.kuberay.run("job-a1")
    assert not bench.phase("Running")["plan"]["priceSource"].startswith("unknown")
    bench.kuberay.succeed("job-a1")
    bench.phase("Succeeded")
    until(lambda: karpenter.nodes() == {}, 180, lambda: karpenter.last_words())
    assert "ScalingUp" in watched.seen()
    assert "Unschedulable" not in watched.seen(), "while Karpenter had yet to speak"


@pytest.mark.parametrize("provider", CLOUDS if ALL else ["aws"])
def test_spot_nodes_sold_out_give_way_to_those_on_demand_after_one_attempt(
    bench: Bench, karpenter: Autoscaled, watched: Watched, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """Although the profile itself would be given ten minutes."""
    patience = waiting.SOLD_OUT if ALL else 3
    monkeypatch.setattr(waiting, "SOLD_OUT", patience)
    _, dear, kind, _ = CLOUDS[provider]
    given(bench, karpenter, provider, "on-demand")
    bench.apply(**compute(provider, f"{dear}-spot", dear))
    pending(bench, "job-a1")
    begun = time.monotonic()
    bench.until(lambda: bench.status().get("failure"))
    waited = time.monotonic() - begun
    assert patience - 1 <= waited <= patience + 60, waited  # KubeRay's time of beginning is in whole seconds
    assert bench.status()["failure"]["code"] == "GTJ0201"
    assert bench.status()["failure"]["detail"].startswith("no capacity for pod job-a1-worker-")
    bench.until(lambda: "job-a1" not in bench.kuberay.rayjobs())
    bench.kuberay.clean_up("job-a1")
    pending(bench, "job-a2")
    bound(bench, "job-a2", 3)
    told = sorted(
        (labels["node.kubernetes.io/instance-type"], labels["karpenter.sh/capacity-type"]) for labels in karpenter.nodes().values()
    )
    assert told == sorted([(kind, "on-demand"), (kind, "on-demand"), ("m7i.4xlarge", "on-demand")])
    bench.driver.report = report(5)
    bench.kuberay.run("job-a2")
    status = bench.phase("Running")
    assert (status["plan"]["profile"], [one["name"] for one in status["profiles"]]) == (dear, [f"{dear}-spot"])
    assert (status["attempts"], status["restarts"]) == (2, {"infrastructure": 1})
    bench.kuberay.succeed("job-a2")
    bench.phase("Succeeded")


def test_a_shape_that_no_node_has_is_refused_and_makes_no_node(bench: Bench, karpenter: Autoscaled, watched: Watched) -> None:
    _, profile, _, gpus = CLOUDS["aws"]
    given(bench, karpenter, "aws", "spot", "on-demand")
    bench.apply(compute={"profiles": [profile], "workers": 2, "gpusPerWorker": 2 * gpus})
    bench.until(lambda: bench.reason("Accepted") == "PlanDoesNotFit")
    assert bench.status()["message"].startswith(f"GTJ0108 a worker wants {2 * gpus} GPUs (compute.gpusPerWorker)"), bench.status()
    assert bench.kuberay.rayjobs() == {}
    assert karpenter.claims() == []


def refusals(bench: Bench) -> list[str]:
    """What Karpenter said of the job's pods."""
    found = json.loads(bench.cluster.kubectl("get", "events", "-n", bench.namespace, "-o", "json").stdout)["items"]
    by = [(one, one.get("reportingComponent") or one["source"]["component"]) for one in found]
    return [one["message"] for one, who in by if one["reason"] == "FailedScheduling" and who == "karpenter"]


@pytest.mark.parametrize(
    ("capacities", "gpus", "words"),
    [((), None, "or had a required offering"), (("spot", "on-demand"), "4", "all available instance types exceed limits for nodepool")],
    ids=["sold out", "limit"],
)
def test_no_capacity_is_told_in_karpenters_words(
    bench: Bench, karpenter: Autoscaled, watched: Watched, capacities: tuple[Capacity, ...], gpus: str | None, words: str
) -> None:
    _, profile, _, _ = CLOUDS["aws"]
    given(bench, karpenter, "aws", *capacities, gpus=gpus)
    bench.apply(**compute("aws", profile))
    pending(bench, "job-a1")
    bench.until(lambda: bench.reason("ResourcesReady") == "NoCapacity")
    message = bench.status()["message"]
    found = re.fullmatch(r"GTJ0201 no capacity for pod job-a1-worker-\d: (.*) \(karpenter\); the scheduler: .*", message)
    assert found, message
    told = found.group(1).removesuffix("…")
    assert words in told, message
    assert any(told in one for one in refusals(bench)), (message, refusals(bench))
    assert bench.status()["attempts"] == 1, "there is no other profile to turn to"


def test_a_type_of_which_nothing_is_left_anywhere_is_known_by_the_promise_before(bench: Bench, karpenter: Autoscaled) -> None:
    """Karpenter leaves such a type out of what it looks at, so of a pod that asks for it later it says what it says of a wrong shape."""
    folder, profile, _, _ = CLOUDS["aws"]
    given(bench, karpenter, "aws", "on-demand")
    karpenter.start_up("10m")
    try:
        bench.apply("promised", **compute("aws", profile))
        pending(bench, "promised-a1")
        bench.until(lambda: "is on its way (karpenter: " in bench.status("promised").get("message", ""))
        karpenter.offer(pools(ROOT / "manifests" / "nodepools" / folder), [plain()])
        karpenter.clear()
        bench.until(lambda: bench.reason("ResourcesReady", "promised") == "NoCapacity")
        assert bench.status("promised")["message"].startswith("GTJ0201 no capacity for pod promised-a1-worker-")
        bench.apply("late", **compute("aws", profile))
        pending(bench, "late-a1")
        late = r"GTJ0202 pod late-a1-worker-\d fits no node, and none that karpenter can make: "
        bench.until(lambda: re.match(late, bench.status("late").get("message", "")))
        assert bench.reason("ResourcesReady", "late") == "Unschedulable"
    finally:
        karpenter.start_up("0s")
