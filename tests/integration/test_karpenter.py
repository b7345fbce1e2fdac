"""Jobs on a cluster without a node: the real Karpenter makes what the workers of each cloud's pools ask for, by the NodePools that are
shipped, and its words are what a user reads where it cannot. KubeRay is played, nodes and pods are kwok's, the scheduler is Kubernetes'."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gentrain_operator.kube.resource import Object
from tests.cluster.at_work import Bench, Driver, report, until
from tests.cluster.autoscaled import Autoscaled, Capacity, offered, plain, pools
from tests.cluster.binaries import Unavailable, binary
from tests.cluster.control_plane import ControlPlane, control_plane
from trainjobs.api import crd

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# By the provider: its folder under manifests/nodepools, the profile on demand and on spot nodes, the type of their nodes, and GPUs of one.
CLOUDS = {
    "aws": ("eks-karpenter", "karpenter-l4", "karpenter-l4-spot", "g6.12xlarge", 4),
    "azure": ("aks-nap", "nap-a100", "nap-a100-spot", "Standard_NC24ads_A100_v4", 1),
    "gcp": ("gke-standard", "standard-l4", "standard-l4-spot", "g2-standard-48", 4),
}
# What else there is to be had: a pool of which nothing is to be had at all is not named in what Karpenter says.
OTHERS = {"aws": "g5.xlarge", "azure": "Standard_NC4as_T4_v3", "gcp": "a2-highgpu-1g"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, kuberay_crds: str, say: Callable[[str], None]) -> Iterator[ControlPlane]:
    """One of its own: nodes of a cluster are everybody's."""
    try:
        with control_plane(tmp_path_factory.mktemp("karpenter"), say) as running:
            for definition in crd.definitions().values():
                running.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
            running.kubectl("apply", "--server-side", "-f", kuberay_crds)
            running.wait_for_kinds("gentrain.dev", 2)
            running.wait_for_kinds("ray.io", 2)
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
def bench(cluster: ControlPlane, namespace: str, driver: Driver) -> Iterator[Bench]:
    running = Bench(cluster, namespace, driver)
    yield running
    running.stop()
    cluster.kubectl("delete", "pods", "--all", "-n", namespace, "--force", "--grace-period=0")


def given(bench: Bench, karpenter: Autoscaled, provider: str, *capacities: Capacity, gpus: str | None = None) -> None:
    """The provider's profiles and pools, and what there is to be had of its GPU nodes."""
    folder, _, _, kind, _ = CLOUDS[provider]
    until(lambda: karpenter.nodes() == {}, 120, lambda: karpenter.log("karpenter"))
    for path in sorted((ROOT / "manifests" / "nodepools" / folder).glob("profile-*.yaml")):
        bench.cluster.kubectl("apply", "-n", bench.namespace, "-f", str(path))
    types = [offered(provider, kind, *capacities), offered(provider, OTHERS[provider], "spot", "on-demand")]
    karpenter.offer(pools(ROOT / "manifests" / "nodepools" / folder, gpus=gpus), [plain(), *types])


def compute(provider: str, *profiles: str, workers: int = 2) -> Object:
    return {"compute": {"profiles": list(profiles), "workers": workers, "gpusPerWorker": CLOUDS[provider][4]}}


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
        options = [f"--kubeconfig={bench.cluster.kubeconfig}", "-n", bench.namespace, "get", "gtj", "-w", "-o", "wide"]
        with open(path, "wb") as out:
            self._process = subprocess.Popen([binary("kubectl"), *options], stdout=out, stderr=out)

    def end(self) -> str:
        self._process.kill()
        self._process.wait()
        return self._path.read_text()


@pytest.mark.parametrize("provider", CLOUDS)
def test_a_job_makes_exactly_its_nodes_appear_run_and_go(bench: Bench, karpenter: Autoscaled, tmp_path: Path, provider: str) -> None:
    _, profile, _, kind, _ = CLOUDS[provider]
    given(bench, karpenter, provider, "spot", "on-demand")
    watched = Watched(bench, tmp_path / "watched")
    bench.apply(**compute(provider, profile))
    bench.rayjob("job-a1")
    bench.kuberay.initialize("job-a1", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
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
    until(lambda: karpenter.nodes() == {}, 180, lambda: karpenter.log("karpenter"))
    seen = watched.end()
    print(seen)
    assert "ScalingUp" in seen or "is on its way" in seen, seen
