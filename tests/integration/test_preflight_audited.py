"""A job that cannot train is refused before an accelerator is asked for: read from the API server's audit log, for each thing that can be
wrong. Accounts, the scheduler, stores and data are real, and so is the command of the pod, which runs here as the kubelet would run it.

How long a verdict takes is printed (`-rP` shows it), and asserted nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gentrain_operator.kube.resource import CONFIGMAPS, Object
from tests.cluster import audit
from tests.cluster.at_work import Driver
from tests.cluster.binaries import Unavailable, binary
from tests.cluster.control_plane import ControlPlane
from tests.cluster.looking import Looking
from tests.operator.test_preflight import ended, waits
from tests.stores.servers import Service, service

pytestmark = pytest.mark.slow

ROOM = {"cpu": "64", "memory": "500Gi", "pods": "100", "nvidia.com/gpu": "8"}
PLAIN = {"cpu", "memory", "ephemeral-storage"}
READS = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, kuberay_crds: str) -> Iterator[ControlPlane]:
    """With the scheduler and one node, on which whatever does not want another one has room; and accounts matter."""
    cluster = ControlPlane(tmp_path_factory.mktemp("audited"), lambda line: None)
    try:
        for name in ("etcd", "kube-apiserver", "kube-scheduler", "kubectl"):
            binary(name)
        cluster.start_etcd()
        cluster.start_apiserver(*audit.audited(cluster, audit.PODS), wants_accounts=True)
        cluster.define(kuberay_crds)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}, "status": {"capacity": ROOM, "allocatable": ROOM}}
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))
        cluster.kubectl("taint", "nodes", "node", "node.kubernetes.io/not-ready-", check=False)
        profile: dict[str, Any] = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": "elsewhere"}}
        profile["spec"] = {"accelerator": {"type": "l4", "perNode": 8}, "head": {"selector": {"pool": "elsewhere"}}}
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(profile))
        cluster.kubectl("create", "namespace", "team")
        cluster.kubectl("-n", "team", "create", "serviceaccount", "default")
        cluster.start_scheduler()
        yield cluster
    except Unavailable as reason:
        pytest.skip(str(reason))
    finally:
        cluster.stop_all()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service("moto", tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
def bench(server: ControlPlane, driver: Driver) -> Iterator[Looking]:
    running = Looking(server, "team", driver)
    yield running
    running.stop()


class Row(NamedTuple):
    """`pod`: what the user wrote for its pods; `does`: what becomes of the pod, where the scheduler has no say; reason and code of the
    refusal, and a word of it."""

    spec: dict[str, Any]
    does: Callable[[Looking, str], None] | None
    reason: str
    code: str
    word: str


def runs(bench: Looking, name: str) -> None:
    """The pod's own command, with its own environment and what is mounted into it, and its end as a kubelet writes it."""
    pod, folder = placed(bench, name), bench.cluster.folder / f"pod-{name}"
    (container,) = pod["spec"]["containers"]
    folder.mkdir()
    (mounted,) = (one["configMap"]["name"] for one in pod["spec"]["volumes"] if one["name"] == "job")
    (folder / "job.json").write_text(bench.client.get(CONFIGMAPS, "team", mounted)["data"]["job.json"])
    program, *arguments = container["command"]
    assert program == "python"
    assert arguments[-1] == "/etc/gentrain/job.json"
    own = {one["name"]: one["value"] for one in container["env"] if "value" in one} | {"HOME": str(folder)}
    command = [sys.executable, *arguments[:-1], str(folder / "job.json"), "--verdict", str(folder / "verdict")]
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(command, env={**kept, **own}, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    said = (folder / "verdict").read_text()
    phase = "Succeeded" if done.returncode == 0 else "Failed"
    bench.says(ended(said, done.returncode, "Completed" if done.returncode == 0 else "Error", phase), name)


def placed(bench: Looking, name: str) -> Object:
    """The pod, once the scheduler has given it to the node."""
    found: Object = bench.until(lambda: pod if "nodeName" in (pod := bench.pod(name))["spec"] else None)
    return found


def unpulled(bench: Looking, name: str) -> None:
    placed(bench, name)
    bench.says({"phase": "Pending", **waits("ImagePullBackOff", "no such tag")}, name)


def environment(store: Service, **more: str) -> list[Object]:
    return [{"name": name, "value": value} for name, value in {**store.environ(), **more}.items()]


def reader(store: Service) -> dict[str, str]:
    """Somebody whom the store lets read and nothing else, and what leads an SDK to that."""
    import boto3

    given = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing123", "region_name": "us-east-1"}
    iam = boto3.client("iam", endpoint_url=store.environ()["AWS_ENDPOINT_URL"], **given)
    iam.create_user(UserName="reader")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [READS]})
    iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def rights_count(store: Service, requests: str) -> None:
    """From so many requests on, the store looks at who may do what."""
    address = f"{store.environ()['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    with urllib.request.urlopen(urllib.request.Request(address, requests.encode(), {"Content-Type": "text/plain"}, method="POST")):
        pass


def row(name: str, store: Service) -> Row:
    uri = {"uri": store.fresh()}
    pod = {"env": environment(store)}
    if name == "image":
        return Row({"pod": {**pod, "image": "trainer:none"}}, unpulled, "ImagePullFailed", "GTJ0204", "no such tag")
    if name == "account":
        return Row({"pod": {**pod, "serviceAccountName": "nobody"}}, None, "AccountNotFound", "GTJ0111", "nobody")
    if name == "bucket":
        bucket = {"uri": "s3://nowhere/runs"}
        return Row({"pod": pod, "checkpoints": bucket}, runs, "PreflightFailed", "GTJ0112", "there is no bucket nowhere")
    if name == "region":
        there = {"env": environment(store, AWS_DEFAULT_REGION="Frankfurt 1")}
        return Row({"pod": there, "checkpoints": uri}, runs, "PreflightFailed", "GTJ0112", "set AWS_DEFAULT_REGION to the bucket's region")
    if name == "verb":
        whom = {"env": environment(store, **reader(store))}
        word = "s3:PutObject was refused to arn:aws:iam::123456789012:user/reader"
        return Row({"pod": whom, "checkpoints": uri}, runs, "PreflightFailed", "GTJ0112", word)
    if name == "dataset":
        data = {"source": f"{store.fresh()}/none", "images": {"size": 8, "channels": 1}}
        return Row({"pod": pod, "data": data}, runs, "PreflightFailed", "GTJ0113", data["source"])
    assert name == "unschedulable"
    compute = {"gpusPerWorker": 2, "workers": 2, "profiles": ["elsewhere"]}
    return Row({"pod": pod, "compute": compute}, None, "Unschedulable", "GTJ0202", "0/1 nodes are available")


def accelerators(content: Any) -> set[str]:
    """What is asked for besides processors and memory, anywhere in an object: a pod's containers, or the templates of what makes pods."""
    if isinstance(content, list):
        return {name for one in content for name in accelerators(one)}
    if not isinstance(content, dict):
        return set()
    asked = {name for kind in ("requests", "limits") for name in ((content.get("resources") or {}).get(kind) or {})}
    return (asked - PLAIN) | {name for one in content.values() for name in accelerators(one)}


def made(cluster: ControlPlane, job: str) -> list[dict[str, Any]]:
    """Pods, RayJobs and RayClusters that anybody made for a job."""
    return [
        one
        for one in audit.requests(cluster)
        if one["verb"] == "create" and one["objectRef"]["resource"] in ("pods", "rayjobs", "rayclusters")
        if "subresource" not in one["objectRef"] and one["responseStatus"]["code"] == 201
        if (one["requestObject"]["metadata"].get("name") or "").startswith(f"{job}-")
    ]


def when(request: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(request["stageTimestamp"])


def written(cluster: ControlPlane, job: str, says: Callable[[Object], bool]) -> datetime:
    """When the status of a job first said so."""
    return next(
        when(one)
        for one in audit.requests(cluster)
        if (one["objectRef"]["resource"], one["objectRef"].get("subresource")) == ("generativetrainingjobs", "status")
        if one["objectRef"]["name"] == job and says(one["requestObject"]["status"])
    )


@pytest.mark.parametrize("name", ["image", "account", "bucket", "region", "verb", "dataset", "unschedulable"])
def test_nothing_asks_for_an_accelerator_before_a_refusal(name: str, bench: Looking, server: ControlPlane, store: Service) -> None:
    refused = row(name, store)
    rights_count(store, "0" if name == "verb" else "inf")
    spec = {"compute": {"gpusPerWorker": 2, "workers": 2}, "checkpoints": {"uri": store.fresh()}, **refused.spec}
    bench.apply(name, **spec)
    if refused.does is not None:
        refused.does(bench, name)
    bench.until(lambda: bench.reason("Accepted", name) == refused.reason)
    status = bench.status(name)
    assert (status["phase"], status["message"][:8]) == ("Pending", f"{refused.code} ")
    assert refused.word in status["message"]

    begun = next(when(one) for one in audit.requests(server) if one["verb"] == "create" and one["objectRef"].get("name") == name)
    verdict = written(server, name, lambda status: status["message"].startswith(refused.code))
    print(f"{name}: refused after {(verdict - begun).total_seconds():.1f} s")
    assert {one["objectRef"]["resource"] for one in made(server, name)} == ({"pods"} if name != "account" else set())
    assert all(one["requestObject"]["metadata"]["name"] == f"{name}-preflight" for one in made(server, name))
    assert accelerators([one["requestObject"] for one in made(server, name)]) == set()


def test_a_good_job_begins_and_its_accelerators_are_asked_for_after_the_verdict(
    bench: Looking, server: ControlPlane, store: Service
) -> None:
    """Without this the others would be content with a log of nothing."""
    rights_count(store, "inf")
    uri = store.fresh()
    bench.apply("good", compute={"gpusPerWorker": 2, "workers": 2}, checkpoints={"uri": uri}, pod={"env": environment(store)})
    runs(bench, "good")
    rayjob = bench.running("good")
    found = made(server, "good")
    verdict = written(server, "good", lambda status: bool(status.get("preflight", {}).get("passed")))
    asked = [one for one in found if accelerators(one["requestObject"])]
    assert {one["objectRef"]["resource"] for one in asked} == {"rayjobs", "pods"}
    assert accelerators([one["requestObject"] for one in asked]) == {"nvidia.com/gpu"}
    assert sum(one["objectRef"]["resource"] == "pods" for one in asked) == 2, "its workers"
    assert min(map(when, asked)) > verdict
    assert "can be written, read, listed and cleared as arn:aws:" in bench.status("good")["preflight"]["said"]
    (ray,) = (one for one in asked if one["requestObject"]["metadata"]["name"] == rayjob)
    over = next(
        when(one)
        for one in audit.requests(server)
        if one["verb"] == "update" and one["objectRef"]["name"] == "good-preflight" and one["objectRef"].get("subresource") == "status"
    )
    print(f"begun {(when(ray) - over).total_seconds():.1f} s after the pod's end")
