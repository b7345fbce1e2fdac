"""What goes wrong around the operator: the server, the network, the lease. The job's truth stays right and no thread dies."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import EVENTS, JOBS, LEASES, RAYJOBS, Object
from gentrain_operator.main import LEASE_NAME
from tests.cluster.at_work import Running, attempts, manifest, until
from tests.cluster.control_plane import ControlPlane, free_ports

pytestmark = pytest.mark.slow

# Seconds that etcd is gone, beyond the three in which a request finds out; a campaign takes 60.
OUTAGE = float(os.environ.get("GENTRAIN_OUTAGE", "0"))


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def one(kubeconfig: Any, namespace: str) -> Running:
        started.append(Running(str(kubeconfig), namespace))
        return started[-1]

    yield one
    for running in started:
        running.stop()


def test_two_operators_at_once_make_one_rayjob_and_hand_over(
    installed: ControlPlane, namespace: str, start: Callable[..., Running]
) -> None:
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    first, second = start(installed.kubeconfig, namespace), start(installed.kubeconfig, namespace)
    for number in range(5):
        client.create(JOBS, namespace, manifest(f"job-{number}"))
    until(lambda: all(attempts(client, namespace, f"job-{number}") == 1 for number in range(5)))
    assert len(client.list(RAYJOBS, namespace)["items"]) == 5
    leading = [one for one in (first, second) if one.operator.lease.held()]
    assert len(leading) == 1
    leading[0].stop()
    client.create(JOBS, namespace, manifest("later"))
    until(lambda: attempts(client, namespace, "later") == 1)
    (other,) = [one for one in (first, second) if one is not leading[0]]
    assert other.operator.lease.held()


def test_a_stolen_lease_stops_the_operator(installed: ControlPlane, namespace: str, start: Callable[..., Running]) -> None:
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    running = start(installed.kubeconfig, namespace)
    until(running.operator.lease.held)
    lease = client.get(LEASES, namespace, LEASE_NAME)
    thief = {"holderIdentity": "thief", "leaseDurationSeconds": 3600}
    until(lambda: _stolen(client, namespace, {**lease["spec"], **thief}))
    running.thread.join(30)
    assert running.result == 1
    assert client.get(LEASES, namespace, LEASE_NAME)["spec"]["holderIdentity"] == "thief"


def _stolen(client: Client, namespace: str, spec: Object) -> bool:
    client.merge(LEASES, namespace, LEASE_NAME, {"spec": spec})
    return bool(client.get(LEASES, namespace, LEASE_NAME)["spec"]["holderIdentity"] == "thief")


def test_the_server_restarts_and_etcd_goes_away(own_cluster: ControlPlane, start: Callable[..., Running], kuberay_crds: str) -> None:
    own_cluster.define(kuberay_crds)
    client = Client(from_kubeconfig(str(own_cluster.kubeconfig)))
    running = start(own_cluster.kubeconfig, "default")
    client.create(JOBS, "default", manifest("before"))
    until(lambda: attempts(client, "default", "before") == 1)
    own_cluster.stop("kube-apiserver")
    own_cluster.start_apiserver()
    until(lambda: client.create(JOBS, "default", manifest("between")))
    until(lambda: attempts(client, "default", "between") == 1)
    own_cluster.stop("etcd")
    impatient = Client(from_kubeconfig(str(own_cluster.kubeconfig)), timeout=(1, 3))
    with pytest.raises(ApiError):
        impatient.create(JOBS, "default", manifest("unanswered"))
    time.sleep(OUTAGE)
    own_cluster.start_etcd()
    until(lambda: client.create(JOBS, "default", manifest("after")))
    # Had the lease run out meanwhile, the process would have ended, and its pod been started again.
    if running.thread.is_alive():
        until(lambda: attempts(client, "default", "after") == 1 or not running.thread.is_alive())
    if not running.thread.is_alive():
        assert running.result == 1
        start(own_cluster.kubeconfig, "default")
        until(lambda: attempts(client, "default", "after") == 1)
    # Whether a request without an answer was carried out, nobody can say.
    made = {one["metadata"]["name"] for one in client.list(RAYJOBS, "default")["items"]} - {"unanswered-a1"}
    assert made == {"after-a1", "before-a1", "between-a1"}


def test_events_refused_cost_nothing_but_the_events(
    installed: ControlPlane, namespace: str, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    """A service account that may do everything but write events."""
    rules = [
        {"apiGroups": ["gentrain.dev", "ray.io", "coordination.k8s.io"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["*"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": namespace}, "rules": rules}
    installed.kubectl("apply", "-f", "-", stdin=json.dumps(role))
    installed.kubectl("-n", namespace, "create", "serviceaccount", "mute")
    installed.kubectl("create", "clusterrolebinding", namespace, f"--clusterrole={namespace}", f"--serviceaccount={namespace}:mute")
    token = installed.kubectl("-n", namespace, "create", "token", "mute").stdout.strip()
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    with caplog.at_level(logging.WARNING):
        start(installed.write_kubeconfig(f"mute-{namespace}", token), namespace)
        for name in ("a", "b"):
            client.create(JOBS, namespace, manifest(name))
            until(lambda name=name: attempts(client, namespace, name) == 1)
        until(lambda: any("events cannot be written" in record.getMessage() for record in caplog.records))
    assert sum("events cannot be written" in record.getMessage() for record in caplog.records) == 1
    assert client.list(EVENTS, namespace)["items"] == []


def test_the_process_answers_probes_and_ends_on_sigterm(installed: ControlPlane, namespace: str) -> None:
    """The command as the chart runs it: ready once synced, and the lease given back at the end."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "gentrain_operator.main", "--trainer-image", "i", "--home", namespace, "--namespace", namespace]
    command += ["--port", str(port), "--kubeconfig", str(installed.kubeconfig)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: answer(port, "/readyz") == "ok" and answer(port, "/livez") == "ok")
        client.create(JOBS, namespace, manifest("job"))
        until(lambda: attempts(client, namespace, "job") == 1)
        assert "gentrain_leading 1.0" in answer(port, "/metrics")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert client.get(LEASES, namespace, LEASE_NAME)["spec"]["holderIdentity"] == ""
    finally:
        process.kill()
        process.wait()


def answer(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return str(response.read().decode())
    except OSError as error:
        return str(error)
