"""gtj on a cluster: a real API server, our operator at work, a stand-in for KubeRay. `gtj` mostly runs in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.binaries import binary
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet_standin import Kubelet
from tests.cluster.kueue import bare_definition
from trainjobs.api import crd
from trainjobs.cli.cluster import logs as logs_module
from trainjobs.cli.cluster import wait as wait_module
from trainjobs.cli.main import status

at_work = pytest.importorskip("tests.cluster.at_work")  # its `bench` comes from conftest.py
Bench, report = at_work.Bench, at_work.report

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
VAE = str(ROOT / "manifests" / "samples" / "vae-digits.yaml")

Gtj = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_module, "POLL", 0.05)
    monkeypatch.setattr(logs_module, "POLL", 0.05)


@pytest.fixture
def anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gtj:
    """gtj as typed: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = status(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def gtj(anywhere: Gtj, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Gtj:
    """The same in the bench's namespace, as the administrator."""
    monkeypatch.setenv("KUBECONFIG", str(bench.cluster.kubeconfig))
    return lambda verb, *arguments: anywhere(verb, *arguments, "-n", bench.namespace)


def beside(act: Callable[[], Any]) -> threading.Thread:
    """Acts while gtj waits."""
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def user(cluster: ControlPlane, name: str, token: str = "", url: str = "") -> str:
    """A kubeconfig of a service account that may do nothing, or with a token of its own."""
    if not token:
        cluster.kubectl("-n", "default", "create", "serviceaccount", name)
        token = cluster.kubectl("-n", "default", "create", "token", name).stdout.strip()
    return str(cluster.write_kubeconfig(name, token, url))


# --- from submit to the end


def test_every_sample_from_submit_to_success(bench: Bench, gtj: Gtj) -> None:
    for sample in SAMPLES:
        code, out, _ = gtj("submit", "-f", str(sample))
        assert (code, out.split()[0]) == (0, "created")
    names = sorted(yaml.safe_load(sample.read_text())["metadata"]["name"] for sample in SAMPLES)
    for name in names:
        bench.running(name)
    code, out, _ = gtj("ls")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", *names]
    assert max(map(len, out.splitlines())) <= 80
    assert [row["name"] for row in json.loads(gtj("ls", "-o", "json")[1])] == names
    code, out, err = gtj("ls", "-A", "-o", "yaml")
    assert code == 0, err
    assert {row["namespace"] for row in yaml.safe_load(out)} >= {bench.namespace}
    for name in names:
        bench.kuberay.succeed(f"{name}-a1")
        code, out, _ = gtj("wait", name, "--timeout", "60s")
        assert code == 0
        assert out.startswith(f"Succeeded  {name}: step ")
    assert "is Succeeded: 100%" in gtj("explain", names[0])[1]
    assert gtj("logs", names[0])[0] == 7
    assert gtj("rm", *names)[0] == 0
    assert gtj("ls")[1:] == (
        "",
        f"no jobs in namespace {bench.namespace} (context test, {bench.cluster.url}, as admin); start one with: gtj submit -f job.yaml\n",
    )


def test_submit_that_waits_says_how_it_goes(bench: Bench, gtj: Gtj, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainjobs.cli.screen.INTERVAL", 0.0)

    def train() -> None:
        bench.running("vae-digits")
        bench.driver.report = report(40, checkpoint={"uri": "s3://b/p", "step": 30})
        bench.until(lambda: bench.status("vae-digits").get("progress", {}).get("step") == 40)
        shown.append(gtj_status())
        bench.kuberay.succeed("vae-digits-a1")

    def gtj_status() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "trainjobs.cli.main", "status", "vae-digits", "-n", bench.namespace], capture_output=True, text=True
        )
        return done.stdout

    shown: list[str] = []
    training = beside(train)
    code, out, err = gtj("submit", "-f", VAE, "--wait", "--timeout", "2m")
    training.join()
    assert code == 0
    assert out.splitlines()[-1].startswith("Succeeded  vae-digits: step 1500/1500")
    assert "vae-digits: provisioning" in err
    assert "vae-digits: 3% 40/1500, loss 0.5" in err
    page = shown[0]
    for words in ("vae-digits  vae  Running", "3% 40/1500", "checkpoint step 30, s3://b/p", "RayJob vae-digits-a1", "events", "as admin"):
        assert words in page, page


@pytest.mark.parametrize(("code", "expected"), [("GTJ0206", 5), ("GTJ0113", 7)])
def test_waiting_ends_with_the_failures_own_status(bench: Bench, gtj: Gtj, code: str, expected: int) -> None:
    bench.apply(recovery={"maxRetries": 0})
    name = bench.running()
    record = json.dumps({"code": code, "what": "it went wrong", "why": "as it does", "rank": 1, "step": 9})
    failing = beside(lambda: bench.kuberay.fail(name, f"gentrain-failure: {record}"))
    result, out, err = gtj("wait", "job", "--timeout", "60s")
    failing.join()
    assert result == expected
    assert out.startswith("Failed  job: ")
    assert err.splitlines()[-4:-1] == [f"{code} it went wrong", "  where: rank 1, step 9", "  why:   as it does"]
    data = json.loads(gtj("wait", "job", "-o", "json")[1])
    assert (data["exitCode"], data["failure"]["rank"]) == (expected, 1)
    explained = gtj("explain", "job")[1]
    assert "is Failed: it went wrong" in explained
    assert f"gtj explain {code}" in explained
    assert gtj("resume", "job")[0] == 2
    assert gtj("stop", "job")[0] == 0


def test_the_same_name_twice(bench: Bench, gtj: Gtj) -> None:
    assert gtj("submit", "-f", VAE, "--dry-run")[1].startswith("vae-digits would be created in namespace")
    assert bench.jobs() == []
    assert gtj("submit", "-f", VAE, "-o", "json")[0] == 0
    code, out, _ = gtj("submit", "-f", VAE)
    assert (code, out.split()[0]) == (0, "unchanged")
    code, _, err = gtj("submit", "-f", VAE, "--set", "training.seed=4")
    assert code == 2
    assert "GTJ0119 job vae-digits exists with another spec" in err
    assert "training.seed: 0 there, 4 here" in err
    assert f"gtj rm vae-digits -n {bench.namespace}" in err
    assert gtj("stop", "vae-digits")[0] == 0
    code, _, err = gtj("submit", "-f", VAE)
    assert code == 2
    assert f"gtj resume vae-digits -n {bench.namespace}" in err


def test_stop_resume_and_rm(bench: Bench, gtj: Gtj) -> None:
    bench.apply()
    name = bench.running()

    def suspend() -> None:
        bench.until(lambda: bench.rayjob(name)["spec"]["suspend"])
        bench.kuberay.suspend(name)

    kuberay = beside(suspend)
    code, out, _ = gtj("stop", "job", "--wait", "--timeout", "60s")
    kuberay.join()
    assert (code, out.splitlines()) == (0, ["job stops; its checkpoints stay", "job: Suspended"])
    assert "it is suspended" in gtj("explain", "job")[1]
    assert gtj("stop", "job")[1].startswith("job is stopped already")
    assert gtj("wait", "job", "--for", "suspended")[0] == 0

    def go_on() -> None:
        bench.until(lambda: bench.rayjob(name)["spec"]["suspend"] is False)
        bench.kuberay.succeed(bench.running())

    kuberay = beside(go_on)
    code, out, _ = gtj("resume", "job", "--wait", "--timeout", "60s")
    kuberay.join()
    assert (code, out.splitlines()[0]) == (0, "job goes on")
    bench.apply("live")
    code, _, err = gtj("rm", "job", "live")
    assert code == 2
    assert "add --yes" in err
    assert gtj("rm", "job", "nobody", "--yes")[0] == 7
    assert len(bench.jobs()) == 2
    assert gtj("rm", "job", "live", "--yes")[0] == 0
    assert bench.jobs() == []


def test_a_job_deleted_while_it_is_waited_for(bench: Bench, gtj: Gtj) -> None:
    bench.apply()
    bench.running()
    deleting = beside(lambda: gtj_rm(bench))
    code, _, err = gtj("wait", "job", "--timeout", "60s")
    deleting.join()
    assert code == 7
    assert 'no job called "job"' in err
    assert gtj("wait", "job")[0] == 7


def gtj_rm(bench: Bench) -> None:
    command = [sys.executable, "-m", "trainjobs.cli.main", "rm", "job", "--yes", "-n", bench.namespace]
    assert subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def test_the_time_is_up(bench: Bench, gtj: Gtj) -> None:
    bench.apply()
    bench.phase("Provisioning")
    code, _, err = gtj("wait", "job", "--timeout", "1s")
    assert code == 6
    assert "GTJ0215 job has not become Finished within 1s: it is Provisioning" in err


# --- why it does not run


def test_a_missing_profile(bench: Bench, gtj: Gtj) -> None:
    bench.apply(compute={"profiles": ["no-such-pool"], "gpusPerWorker": 0})
    bench.until(lambda: bench.reason("Accepted") == "ProfileNotFound")
    out = gtj("explain", "job")[1]
    assert "job is Pending: it waits for a compute profile (GTJ0111)" in out
    assert "no-such-pool" in out
    assert max(map(len, out.splitlines())) <= 80
    assert json.loads(gtj("explain", "job", "-o", "json")[1])["code"] == "GTJ0111"


def test_pods_that_do_not_come_up(bench: Bench, gtj: Gtj) -> None:
    bench.apply()
    bench.rayjob("job-a1")
    bench.kuberay.initialize("job-a1")
    assert "its pods are coming up: 0 of 3 run" in gtj("explain", "job")[1]
    why = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    bench.kuberay.pod_status("job-a1-worker-0", {"phase": "Pending", "conditions": [unscheduled]})
    out = gtj("explain", "job")[1]
    for words in (
        "its pods fit no node (GTJ0202)",
        "Insufficient nvidia.com/gpu",
        "job-a1-worker-0  Unschedulable",
        "kubectl describe pod",
    ):
        assert words in out
    stuck = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "trainer:test"'}}
    container = {"name": "ray-head", "image": "trainer:test", "imageID": "", "ready": False, "restartCount": 0, "state": stuck}
    bench.kuberay.pod_status("job-a1-head", {"phase": "Pending", "containerStatuses": [container]})
    out = gtj("explain", "job")[1]
    assert "its image cannot be pulled (GTJ0204)" in out
    assert "job-a1-head      ImagePullBackOff" in out
    code, _, err = gtj("logs", "job")
    assert code == 7
    assert "GTJ0118 pod job-a1-head has no log yet" in err


def test_a_queued_job(bench: Bench, gtj: Gtj) -> None:
    bench.apply(compute={"queue": "team-a", "gpusPerWorker": 0})
    rayjob = bench.rayjob("job-a1")
    bench.phase("Queued")
    assert "this cluster has no Kueue to admit it" in " ".join(gtj("explain", "job")[1].split())
    for plural, kind in (("workloads", "Workload"), ("localqueues", "LocalQueue")):
        bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(bare_definition(plural, kind)))
    bench.cluster.wait_for_kinds("kueue.x-k8s.io", 2)
    assert "no LocalQueue of that name" in " ".join(gtj("explain", "job")[1].split())
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "job-a1", "uid": rayjob["metadata"]["uid"]}
    waits = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient unused quota for cpu"}
    for body in (
        {"kind": "LocalQueue", "metadata": {"name": "team-a"}},
        {"kind": "Workload", "metadata": {"name": "rayjob-job", "ownerReferences": [owner]}, "status": {"conditions": [waits]}},
    ):
        bench.cluster.kubectl(
            "-n", bench.namespace, "create", "-f", "-", stdin=json.dumps({"apiVersion": "kueue.x-k8s.io/v1beta1", **body})
        )
    out = gtj("explain", "job")[1]
    assert "it waits for quota in queue team-a" in out
    assert "Pending: insufficient unused quota for cpu" in out


# --- who may not, and what is not there


def test_refusals(bench: Bench, gtj: Gtj, anywhere: Gtj) -> None:
    nobody = user(bench.cluster, f"nobody-{bench.namespace}")
    code, _, err = gtj("submit", "-f", VAE, "--kubeconfig", nobody)
    assert code == 7
    assert "GTJ0303 cannot create job vae-digits" in err
    assert f'User "system:serviceaccount:default:nobody-{bench.namespace}" cannot create' in err
    assert "gentrain-editor" in err
    assert gtj("ls", "--kubeconfig", nobody)[0] == gtj("explain", "x", "--kubeconfig", nobody)[0] == 7
    # With the chart's viewer role alone: neither pods nor events.
    bench.apply()
    bench.phase("Provisioning")
    role = ("create", "role", "viewer", "--verb=get,list,watch", "--resource=generativetrainingjobs.gentrain.dev")
    bench.cluster.kubectl("-n", bench.namespace, *role)
    account = f"--serviceaccount=default:nobody-{bench.namespace}"
    bench.cluster.kubectl("-n", bench.namespace, "create", "rolebinding", "viewer", "--role=viewer", account)
    bench.until(lambda: gtj("ls", "--kubeconfig", nobody)[0] == 0)
    for verb in ("status", "explain"):
        assert gtj(verb, "job", "--kubeconfig", nobody)[0] == 0
    code, _, err = gtj("logs", "job", "--kubeconfig", nobody)
    assert (code, "cannot list the pods of job job: not allowed" in err) == (7, True)
    code, _, err = gtj("ls", "--kubeconfig", user(bench.cluster, "stale", "not-a-token"))
    assert (code, "not logged in" in err) == (7, True)
    code, _, err = anywhere("submit", "-f", VAE, "-n", "no-such-namespace")
    assert (code, "there is no such namespace" in err) == (7, True)
    code, _, err = gtj("wait", "vae-digts")
    assert (code, f"in namespace {bench.namespace}" in err) == (7, True)
    code, _, err = gtj("ls", "--kubeconfig", user(bench.cluster, "plain", "t", bench.cluster.url.replace("https", "http")))
    assert (code, "GTJ0302" in err and "no API server" in err) == (7, True), err


def test_a_policy_of_the_cluster(bench: Bench, gtj: Gtj) -> None:
    policy = {
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": ["gentrain.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["generativetrainingjobs"]}
            ]
        }
    }
    deny = {"expression": "object.spec.training.steps != 7", "message": "seven is not lucky here"}
    group = "admissionregistration.k8s.io/v1"
    name = f"no-seven-{bench.namespace}"
    for kind, spec in (
        ("ValidatingAdmissionPolicy", {**policy, "validations": [deny]}),
        ("ValidatingAdmissionPolicyBinding", {"policyName": name, "validationActions": ["Deny"]}),
    ):
        body = {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}
        bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    try:
        bench.until(lambda: gtj("submit", "-f", VAE, "--set", "training.steps=7", "--dry-run")[0] == 7)
        err = gtj("submit", "-f", VAE, "--set", "training.steps=7")[2]
    finally:  # other tests share the cluster, and it is the whole cluster's
        bench.cluster.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)
    assert "GTJ0303" in err
    assert "seven is not lucky here" in err


def test_from_a_bare_cluster_through_an_outage(own_cluster: ControlPlane, anywhere: Gtj, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(own_cluster.kubeconfig))
    code, _, err = anywhere("submit", "-f", VAE)
    assert code == 7
    assert "GTJ0304 cannot create job vae-digits in namespace default: Gentrain is not installed in this cluster" in err
    assert f"context test, {own_cluster.url}, as admin" in err
    assert anywhere("ls", "--cluster")[0] == anywhere("wait", "x")[0] == anywhere("explain", "x")[0] == 7
    for definition in crd.definitions().values():
        own_cluster.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
    own_cluster.wait_for_kinds("gentrain.dev", 2)
    assert anywhere("submit", "-f", VAE)[0] == 0
    assert "the operator has not looked at it yet" in " ".join(anywhere("explain", "vae-digits")[1].split())

    waiting = threading.Event()

    def until(*arguments: Any) -> Any:
        waiting.set()
        return really(*arguments)

    really = wait_module.until
    monkeypatch.setattr(wait_module, "until", until)
    results: list[tuple[int, str, str]] = []
    # The server is started by this thread: it would die with another one.
    away = beside(lambda: results.append(anywhere("wait", "vae-digits", "--timeout", "5m")))
    assert waiting.wait(60)
    own_cluster.stop("kube-apiserver")
    own_cluster.start_apiserver()
    own_cluster.wait_for_kinds("gentrain.dev", 2)
    reached = {"status": "True", "reason": "Succeeded", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    patch = {"status": {"phase": "Succeeded", "conditions": [{"type": type_, **reached} for type_ in ("Complete", "Finished")]}}
    own_cluster.kubectl("patch", "gtj", "vae-digits", "--subresource=status", "--type=merge", "-p", json.dumps(patch))
    away.join()
    ((code, out, err),) = results
    assert (code, out.split()[:1]) == (0, ["Succeeded"]), err
    assert "trying for" in err


# --- logs


OUTPUT = [
    "run folder /tmp/gentrain-1",
    "(TrainController pid=90) - (ip=10.0.0.5, pid=212) world_rank=0, local_rank=0, node_rank=0",
    "(TrainController pid=90) - (ip=10.0.0.6, pid=212) world_rank=1, local_rank=0, node_rank=1",
    "(RayTrainWorker pid=212, ip=10.0.0.5) step 1",
    "(RayTrainWorker pid=212, ip=10.0.0.6) step 1 elsewhere",
]


@pytest.fixture
def kubelet(bench: Bench) -> Iterator[Kubelet]:
    node = Kubelet(bench.cluster, f"node-{bench.namespace}")
    yield node
    node.close()


def test_logs_through_the_api_server(bench: Bench, gtj: Gtj, kubelet: Kubelet) -> None:
    bench.apply()
    code, _, err = gtj("logs", "job")
    assert (code, "it has no pods yet" in err) == (7, True), err
    bench.rayjob("job-a1")
    bench.kuberay.initialize("job-a1")
    code, _, err = gtj("logs", "job")
    assert (code, "has no log yet" in err) == (7, True), err
    bench.kuberay.run("job-a1")
    kubelet.bind(bench.namespace, "job-a1-head")
    kubelet.waiting = 'container "ray-head" in pod "job-a1-head" is waiting to start: ContainerCreating'
    code, _, err = gtj("logs", "job")
    assert (code, "waiting to start: ContainerCreating" in err) == (7, True), err
    kubelet.waiting, now = "", time.time()
    kubelet.lines = [(now - 600 + number, text) for number, text in enumerate(OUTPUT)]
    assert gtj("logs", "job")[1].splitlines() == [*OUTPUT[:3], "rank 0 | step 1", "rank 1 | step 1 elsewhere"]
    assert gtj("logs", "job", "--rank", "1")[1].splitlines() == ["step 1 elsewhere"]
    assert gtj("logs", "job", "--grep", "^rank 0")[1].splitlines() == ["rank 0 | step 1"]
    kubelet.lines.append((now - 1, "(RayTrainWorker pid=212, ip=10.0.0.6) step 2"))
    assert gtj("logs", "job", "--since", "2m", "--rank", "1")[1].splitlines() == ["step 2"]
    assert gtj("logs", "job", "--since", "2m")[1].splitlines() == ["(RayTrainWorker pid=212, ip=10.0.0.6) step 2"]
    code, _, err = gtj("logs", "job", "--rank", "9")
    assert (code, "ranks in the log: 0, 1" in err) == (7, True), err
    kubelet.close()
    code, _, err = gtj("logs", "job")
    assert code == 7
    assert "GTJ0302 the node of pod job-a1-head does not hand out its log" in err


def test_logs_are_followed_over_a_broken_stream_to_the_end(bench: Bench, gtj: Gtj, kubelet: Kubelet) -> None:
    bench.apply()
    bench.rayjob("job-a1")
    bench.kuberay.initialize("job-a1")
    kubelet.bind(bench.namespace, "job-a1-head")
    kubelet.cut = 3
    kubelet.lines = [(time.time() + number / 10, f"line {number}") for number in range(5)]

    def train() -> None:
        bench.kuberay.run("job-a1")
        bench.until(lambda: len(kubelet.asked) > 1)
        kubelet.lines += [(time.time() + 1 + number / 10, f"line {number}") for number in range(5, 8)]
        bench.kuberay.succeed("job-a1")
        bench.phase("Succeeded")
        kubelet.over.set()

    training = beside(train)
    code, out, err = gtj("logs", "job", "-f")
    training.join()
    assert code == 0
    assert out.splitlines() == [f"line {number}" for number in range(8)]
    assert "job is Provisioning" in err
    assert "sinceTime" in kubelet.asked[1]


# --- kubectl


def test_kubectl_gtj(bench: Bench, gtj: Gtj) -> None:
    """The real kubectl finds the program, and the program means the cluster."""
    bench.apply()
    bench.phase("Provisioning")
    plugin = Path(sys.executable).parent / "kubectl-gtj"
    assert plugin.exists(), "the project is installed"
    environment = {**os.environ, "PATH": f"{plugin.parent}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"}
    kubectl = str(binary("kubectl"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([kubectl, "gtj", *arguments], capture_output=True, text=True, env=environment, cwd=ROOT / "docs")

    done = run("status", "job", "-n", bench.namespace)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "job  vae  Provisioning")
    done = run("status", "nobody")
    assert done.returncode == 7
    assert 'no job called "nobody" in namespace default' in done.stderr
