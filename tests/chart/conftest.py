"""Control planes for the chart: bare ones, because what is on them has to come from the chart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.helm import ROOT
from tests.cluster.audit import ACCOUNTS, audited
from tests.cluster.binaries import Unavailable, binary
from tests.cluster.control_plane import ControlPlane

KUBERAY_CRDS = Path(os.environ.get("GENTRAIN_KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay" / "crds"))


@pytest.fixture(scope="session")
def programs() -> None:
    """Helm and the control plane can be had on this machine."""
    try:
        for name in ("helm", "etcd", "kube-apiserver", "kubectl"):
            binary(name)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def server(programs: None, tmp_path: Path) -> Iterator[ControlPlane]:
    """An empty cluster for one test. It writes down what service accounts ask for, in audit.log."""
    cluster = ControlPlane(tmp_path, lambda line: None)
    try:
        cluster.start_etcd()
        cluster.start_apiserver(
            *audited(cluster, ACCOUNTS),
            # As on OpenShift: who makes owner references needs more permissions, unless they do not block deletion.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        )
        yield cluster
    finally:
        cluster.stop_all()


@pytest.fixture
def kuberay(server: ControlPlane) -> ControlPlane:
    """The same, with KubeRay's definitions."""
    if not KUBERAY_CRDS.is_dir():
        pytest.skip(f"KubeRay's definitions are not in {KUBERAY_CRDS}; set GENTRAIN_KUBERAY_CRDS")
    server.kubectl("apply", "--server-side", "-f", str(KUBERAY_CRDS))
    server.wait_for_kinds("ray.io", 2)
    return server
