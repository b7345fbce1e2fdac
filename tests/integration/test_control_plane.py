"""The test cluster itself: it is the real thing, it stops when told, and it survives what fault tests do to it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.binaries import KUBERNETES
from tests.cluster.control_plane import ControlPlane, free_ports

pytestmark = pytest.mark.slow


def test_it_is_the_version_that_is_pinned(cluster: ControlPlane) -> None:
    versions = json.loads(cluster.kubectl("version", "-o", "json").stdout)
    assert versions["serverVersion"]["gitVersion"] == KUBERNETES
    assert versions["clientVersion"]["gitVersion"] == KUBERNETES


def test_rbac_refuses_a_service_account_without_a_role(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "nobody")
    token = cluster.kubectl("-n", namespace, "create", "token", "nobody").stdout.strip()
    kubeconfig = cluster.write_kubeconfig("nobody", token)
    refused = cluster.kubectl(f"--kubeconfig={kubeconfig}", "-n", namespace, "get", "configmaps", check=False)
    assert refused.returncode != 0
    assert f'"system:serviceaccount:{namespace}:nobody" cannot list resource "configmaps"' in refused.stderr


def test_data_outlives_a_restart_of_each_process(own_cluster: ControlPlane) -> None:
    own_cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    own_cluster.stop("kube-apiserver")
    assert own_cluster.kubectl("get", "configmap", "kept", check=False).returncode != 0
    own_cluster.stop("etcd")
    own_cluster.start_etcd()
    own_cluster.start_apiserver()
    assert own_cluster.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}").stdout == "b"


def test_stopped_processes_are_gone(own_cluster: ControlPlane) -> None:
    pids = [process.pid for process in own_cluster.processes.values()]
    own_cluster.stop_all()
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_owned_objects_are_collected_when_the_controller_manager_runs(own_cluster: ControlPlane) -> None:
    own_cluster.start_controller_manager()
    own_cluster.kubectl("create", "configmap", "owner")
    uid = own_cluster.kubectl("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}").stdout
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [owner]}}
    own_cluster.kubectl("apply", "-f", "-", stdin=json.dumps(child))
    own_cluster.kubectl("delete", "configmap", "owner", "--cascade=background")
    own_cluster.kubectl("wait", "--for=delete", "configmap/child", "--timeout=30s")
    assert own_cluster.kubectl("get", "configmap", "child", check=False).returncode != 0


def test_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_without_go_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(binaries.os, "access", lambda path, mode: False)
    with pytest.raises(binaries.Unavailable, match="Go is not installed"):
        binaries.binary("etcd")


def test_kubebuilder_assets_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "etcd").write_text("")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert str(binaries.binary("etcd")) == f"{tmp_path}/etcd"
