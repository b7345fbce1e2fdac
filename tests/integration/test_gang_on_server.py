"""Three jobs where one and a half fit, on a real API server with Kubernetes' own scheduler: the younger give back what they hold, all end.

KubeRay's stand-in makes the pods, heads before workers. tests/operator has the rule's cases, and many such clusters in virtual time.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator

import pytest

from gentrain_operator import decide, gang
from gentrain_operator.kube.resource import PODS, PROFILES, Object
from gentrain_operator.kube.store import Key
from tests.cluster.at_work import Bench
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.slow

PODS_OF_ONE = 3  # a head and two workers
ROOM = PODS_OF_ONE + PODS_OF_ONE // 2


@pytest.fixture
def node(installed: ControlPlane, namespace: str) -> Iterator[str]:
    """A node for ROOM pods that choose it, with the scheduler at work while the test runs; its name."""
    name = f"node-{namespace}"
    room = {"cpu": "64", "memory": "256Gi", "pods": str(ROOM)}
    taint = {"key": "only", "value": namespace, "effect": "NoSchedule"}
    metadata = {"name": name, "labels": {"only": namespace}}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": [taint]}}
    body["status"] = {"capacity": room, "allocatable": room}
    installed.kubectl("create", "-f", "-", stdin=json.dumps(body))
    installed.kubectl("replace", "--subresource=status", "-f", "-", stdin=json.dumps(body))
    installed.kubectl("taint", "nodes", name, "node.kubernetes.io/not-ready-", check=False)
    installed.start_scheduler()
    yield name
    installed.stop("kube-scheduler")
    installed.kubectl("delete", "node", name)


@pytest.fixture
def profile(installed: ControlPlane, namespace: str, node: str) -> str:
    """A profile whose pods may only go there."""
    toleration = {"key": "only", "value": namespace, "effect": "NoSchedule"}
    there = {"only": namespace}
    spec = {"selector": there, "head": {"selector": there}, "tolerations": [toleration], "accelerator": {"perNode": 0}}
    body = {"apiVersion": PROFILES.api_version, "kind": PROFILES.kind, "metadata": {"name": f"only-{namespace}"}, "spec": spec}
    installed.kubectl("create", "-f", "-", stdin=json.dumps(body))
    return f"only-{namespace}"


class Cluster:
    """KubeRay and the kubelet at work, a turn at a time, and the operator that looks at every job at every turn."""

    def __init__(self, bench: Bench, names: list[str]) -> None:
        self.bench, self.names = bench, names
        self.gave_back: dict[str, str] = {}  # the first time, in the operator's words

    def pods(self) -> list[Object]:
        return list(self.bench.client.list(PODS, self.bench.namespace)["items"])

    def placed(self, pods: list[Object]) -> int:
        return sum(bool(pod["spec"].get("nodeName")) for pod in pods)

    def turn(self) -> bool:
        """Whether all jobs have ended."""
        kuberay, now = self.bench.kuberay, datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rayjobs = kuberay.rayjobs()
        for name, rayjob in rayjobs.items():
            deployment, pods = (rayjob.get("status") or {}).get("jobDeploymentStatus", ""), kuberay.pods(name)
            if not deployment:
                kuberay.initialize(name, now)
            elif deployment == "Initializing" and self.placed(pods) == PODS_OF_ONE:
                kuberay.run(name, ready=now)
            elif deployment == "Running":
                kuberay.succeed(name)
        clusters = {f"{name}-x1y2z" for name in rayjobs}
        for pod in self.pods():
            if pod["metadata"].get("deletionTimestamp") or pod["metadata"]["labels"]["ray.io/cluster"] not in clusters:
                self.bench.cluster.kubectl(
                    *("delete", "pod", pod["metadata"]["name"], "-n", self.bench.namespace), "--grace-period=0", "--force", check=False
                )
        for name in self.names:
            self.bench.operator.queue.add(Key(self.bench.namespace, name))
            failure = self.bench.status(name).get("failure") or {}
            if failure.get("code") == gang.CODE:
                self.gave_back.setdefault(name, failure["detail"])
        return all(self.bench.status(name).get("phase") == "Succeeded" for name in self.names)


def test_three_jobs_where_one_and_a_half_fit_all_end(bench: Bench, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang, "GRACE", datetime.timedelta(seconds=2))
    monkeypatch.setattr(gang, "PAUSE", (4.0, 8.0))  # the scheduler tries pods that fit nowhere again after a second
    monkeypatch.setattr(decide, "RETRY", (0.01, 10.0))
    for name in ("a", "b", "c"):
        bench.apply(name, compute={"profiles": [profile], "gpusPerWorker": 0, "workers": PODS_OF_ONE - 1})
    jobs = sorted(bench.jobs(), key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["uid"]))
    oldest, middle, youngest = (str(one["metadata"]["name"]) for one in jobs)
    cluster = Cluster(bench, [oldest, middle, youngest])

    # Each gets its head, and the youngest a worker: nobody is whole.
    for name in cluster.names:
        bench.rayjob(f"{name}-a1")
        bench.kuberay.initialize(f"{name}-a1", workers=False)
    bench.until(lambda: cluster.placed(cluster.pods()) == len(cluster.names))
    bench.kuberay.initialize(f"{youngest}-a1")
    bench.until(lambda: cluster.placed(cluster.pods()) == ROOM)
    for name in (middle, oldest):
        bench.kuberay.initialize(f"{name}-a1")
    assert max(cluster.placed(bench.kuberay.pods(f"{name}-a1")) for name in cluster.names) < PODS_OF_ONE

    bench.until(cluster.turn)
    assert bench.status(oldest)["attempts"] == 1
    assert cluster.gave_back, "of itself it does not come loose"
    assert cluster.gave_back.keys() <= {middle, youngest}, (
        "whose grace ends first, and what that sets free, is chance; the oldest keeps its own"
    )
    assert all("which is older, waits in the same way" in told for told in cluster.gave_back.values())
