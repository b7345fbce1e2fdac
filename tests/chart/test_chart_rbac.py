"""The operator under the chart's own service account: it gets along with what it was granted, and was granted nothing that it does not use.

Both are read from the outside: what was granted from the roles that helm installed, what was used from the API server's audit log.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from gentrain_operator import controller as controller_module
from gentrain_operator import decide as decide_module
from gentrain_operator import polls as polls_module
from gentrain_operator.kube.client import from_kubeconfig
from gentrain_operator.kube.resource import EVENTS, JOBS, PODS, RAYJOBS
from gentrain_operator.main import Operator, Settings
from tests.chart.helm import CHART, NAMESPACE, RELEASE, on
from tests.cluster import audit
from tests.cluster.at_work import IMAGE, Bench, Driver, report
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kueue import bare_definition
from trainjobs.plan.prices import REGION, TYPE

pytestmark = pytest.mark.slow


class Permission(NamedTuple):
    """`resource` with its subresource, as roles write it."""

    group: str
    resource: str
    verb: str
    everywhere: bool  # by a ClusterRole


class Confined(Bench):
    """The operator has the service account's token; whoever plays user and KubeRay is the administrator."""

    watched: str | None
    seen = 0

    def start(self) -> None:
        self._stopped = threading.Event()
        token = self.cluster.kubectl("-n", NAMESPACE, "create", "token", RELEASE).stdout.strip()
        kubeconfig = self.cluster.write_kubeconfig("operator", token)
        settings = Settings(IMAGE, NAMESPACE, self.watched, port=0, preflight=True)
        self.operator = Operator(from_kubeconfig(str(kubeconfig)), settings)
        self._thread = threading.Thread(target=self.operator.run, args=(self._stopped,))
        self._thread.start()

    def apply(self, name: str = "job", **spec: Any) -> dict[str, Any]:
        return super().apply(name, **{"preflight": False, **spec})


@pytest.fixture(params=["team,other", ""], ids=["two-namespaces", "all-namespaces"])
def bench(kuberay: ControlPlane, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Confined]:
    for name in ("team", "other"):
        kuberay.kubectl("create", "namespace", name)
    watched = json.dumps(request.param.split(",") if request.param else [])
    on(kuberay, "install", RELEASE, str(CHART), "--create-namespace", f"--set-json=watchNamespaces={watched}")
    kuberay.wait_for_kinds("gentrain.dev", 2)
    driver = Driver()
    monkeypatch.setattr(controller_module, "PORT", driver.port)
    monkeypatch.setattr(polls_module, "EVERY", 0.1)
    monkeypatch.setattr(decide_module, "RETRY", (0.01, 0.1))
    monkeypatch.setattr(Confined, "watched", request.param or None, raising=False)
    running = Confined(kuberay, "team", driver)
    yield running
    if running._thread.is_alive():
        running.stop()
    driver.server.shutdown()
    driver.server.server_close()


def granted(cluster: ControlPlane) -> set[Permission]:
    """What the roles say that are bound to the service account, read back from the server."""
    found = set()
    for kind in ("role", "clusterrole"):
        listed = json.loads(
            cluster.kubectl("get", f"{kind}s,{kind}bindings", "-A", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "json").stdout
        )
        bound = {
            one["roleRef"]["name"]
            for one in listed["items"]
            if "roleRef" in one and {"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE} in one["subjects"]
        }
        roles = [one for one in listed["items"] if "roleRef" not in one and one["metadata"]["name"] in bound]
        found |= {
            Permission(group, resource, verb, kind == "clusterrole")
            for role in roles
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
    return found


def requests(cluster: ControlPlane) -> list[dict[str, Any]]:
    """What the service account asked for."""
    user = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
    return [one for one in audit.requests(cluster) if one["user"]["username"] == user]


def used(cluster: ControlPlane) -> set[tuple[str, str, str]]:
    found = set()
    for one in requests(cluster):
        if one["requestURI"] == "/openapi/v3/apis/gentrain.dev/v1alpha1":
            continue  # the schema that is served: every account may read it (system:discovery), so no role of ours grants it
        assert "objectRef" in one, one["requestURI"]
        about = one["objectRef"]
        resource = about["resource"] + (f"/{about['subresource']}" if about.get("subresource") else "")
        found.add((about.get("apiGroup", ""), resource, one["verb"]))
    return found


def documented() -> set[tuple[str, str, str]]:
    """What the reference page says."""
    page = (CHART.parents[1] / "docs" / "reference" / "chart.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")]
    return {
        (group.strip("`"), resource.strip("`"), verb)
        for group, resource, verbs, _ in (row for row in rows if len(row) == 4)
        for verb in verbs.split(", ")
    }


def test_granted_is_what_is_used(bench: Confined) -> None:
    # A job from apply to its end.
    bench.apply("plain")
    name = bench.running("plain")
    bench.driver.report = report(40)
    bench.phase("Running", "plain")
    bench.kuberay.succeed(name)
    bench.cluster.kubectl("-n", "team", "wait", "--for=condition=Finished", "gtj/plain", "--timeout=15s")
    assert bench.phase("Succeeded", "plain")["progress"]["percent"] == 100

    # A pod looks first, on machines with accelerators whose pods need a namespace that lets them do much.
    fabric = {"provider": "azure", "pool": "pool", "fabric": "azure-ib", "accelerator": {"type": "h100-80gb", "perNode": 8}}
    spec = {**fabric, "node": {"instanceType": "Standard_ND96isr_H100_v5", "cpu": "90", "memory": "1700Gi"}}
    rdma = {"apiVersion": JOBS.api_version, "kind": "ComputeProfile", "metadata": {"name": "rdma"}, "spec": spec}
    bench.cluster.kubectl("create", "-f", "-", stdin=json.dumps(rdma))
    bench.apply("looked", preflight=True, compute={"profiles": ["rdma"], "gpusPerWorker": 8, "workers": 2})
    pod = bench.until(lambda: bench.client.get(PODS, "team", "looked-preflight"))
    ended = {"exitCode": 0, "reason": "Completed", "message": '{"passed": true}'}
    done = {"phase": "Succeeded", "containerStatuses": [{"name": "preflight", "state": {"terminated": ended}}]}
    path = "/api/v1/namespaces/team/pods/looked-preflight/status"
    bench.cluster.kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps({**pod, "status": done}))
    bench.running("looked")

    # Suspended twice: the second event of a kind is a patch of the first.
    bench.apply("pausing")
    name = bench.running("pausing")
    for _ in range(2):
        bench.client.merge(JOBS, "team", "pausing", {"spec": {"suspend": True}})
        bench.until(lambda: bench.rayjob(name)["spec"]["suspend"])
        bench.kuberay.suspend(name)
        bench.phase("Suspended", "pausing")
        bench.client.merge(JOBS, "team", "pausing", {"spec": {"suspend": False}})
        bench.until(lambda: bench.rayjob(name)["spec"]["suspend"] is False)
        bench.running("pausing")
        bench.until(lambda: bench.status("pausing")["phase"] not in ("Suspended", "Stopping"))
    bench.until(lambda: [one for one in bench.client.list(EVENTS, "team")["items"] if one.get("series")])

    # Over its deadline: its RayJob is deleted. Over its time after that: it is deleted itself.
    bench.apply("late", activeDeadlineSeconds=60, ttlSecondsAfterFinished=0)
    bench.running("late")
    bench.until(lambda: "late" not in [one["metadata"]["name"] for one in bench.jobs()])
    bench.until(lambda: "late-a1" not in bench.kuberay.rayjobs())

    # In a queue: what holds it is asked.
    for plural, kind in (("workloads", "Workload"), ("localqueues", "LocalQueue")):
        bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(bare_definition(plural, kind)))
    bench.cluster.wait_for_kinds("kueue.x-k8s.io", 2)
    bench.apply("queued", compute={"gpusPerWorker": 0, "workers": 2, "queue": "team-a"})
    bench.until(lambda: bench.reason("QuotaReserved", "queued") == "QueueNotFound")

    # Worker and head are on a node: its price is looked for.
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {TYPE: "p5.48xlarge", REGION: "us-east-1"}}}
    bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(node))
    bench.apply("priced")
    bench.rayjob("priced-a1")
    bench.kuberay.initialize("priced-a1")
    for pod in ("priced-a1-worker-0", "priced-a1-head"):
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": "n1"}}
        bench.cluster.kubectl("create", "--raw", f"/api/v1/namespaces/team/pods/{pod}/binding", "-f", "-", stdin=json.dumps(binding))
    bench.client.merge(JOBS, "team", "priced", {"metadata": {"annotations": {"look": "again"}}})
    bench.until(lambda: (bench.status("priced").get("plan") or {}).get("usdPerNodeHour") == "55.04")

    # A pod fits no node: what the autoscaler says about it is read.
    bench.apply("waits")
    bench.rayjob("waits-a1")
    bench.kuberay.initialize("waits-a1")
    nowhere = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    bench.kuberay.pod_status(bench.kuberay.pods("waits-a1")[0]["metadata"]["name"], {"conditions": [nowhere]})
    bench.until(lambda: bench.reason("ResourcesReady", "waits") == "Unschedulable")

    # With the third attempt, what the first one read is outdated.
    bench.apply("again", recovery={"maxRetries": 3})
    for attempt in (1, 2):
        bench.kuberay.fail(bench.running("again", attempt), "Traceback")
    bench.rayjob("again-a3")
    bench.until(lambda: ("", "configmaps", "delete") in used(bench.cluster))

    # Its name is taken: both children are looked at.
    theirs = {"apiVersion": RAYJOBS.api_version, "kind": RAYJOBS.kind, "metadata": {"name": "taken-a1"}, "spec": {"entrypoint": "theirs"}}
    bench.client.create(RAYJOBS, "team", theirs)
    bench.apply("taken")
    bench.until(lambda: bench.reason("Accepted", "taken") == "NameTaken")
    bench.client.merge(JOBS, "team", "taken", {"metadata": {"annotations": {"look": "again"}}})
    bench.until(lambda: ("", "configmaps", "get") in used(bench.cluster))
    bench.stop()

    refused = [(one["verb"], one["requestURI"]) for one in requests(bench.cluster) if one["responseStatus"]["code"] in (401, 403)]
    assert refused == []
    given = granted(bench.cluster)
    assert used(bench.cluster) == {(one.group, one.resource, one.verb) for one in given}
    outside = {(one.group, one.resource) for one in given if one.everywhere}
    assert bench.watched is None or outside == {("gentrain.dev", "computeprofiles"), ("", "nodes")}
    assert documented() == {(one.group or "core", one.resource, one.verb) for one in given}
