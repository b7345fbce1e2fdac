"""docs/start/eks.md, gke.md and aks.md: their kubectl, gtj and helm lines, as they stand, on an API server with the real definitions.

There are no nodes and no controllers, so what waits for them (`--wait`) does not wait here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import karpenter, kueue
from tests.cluster.binaries import Unavailable, binary
from tests.cluster.control_plane import ControlPlane
from tests.test_docs import ROOT, commands
from tests.test_docs_clouds import PAGES

pytestmark = pytest.mark.slow

GIVEN = {"REGISTRY": "registry.example.com/you", "TAG": "0.1.0", "BUCKET": "runs", "ACCOUNT": "yourname", "CLIENT": "0-0"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_work_on_a_server(page: Path, own_cluster: ControlPlane, kuberay_crds: str) -> None:
    own_cluster.kubectl("apply", "--server-side", "-f", kuberay_crds)
    try:
        karpenter.install(own_cluster)
        _, data = kueue.provide("kueue")
    except Unavailable as reason:
        pytest.skip(str(reason))
    own_cluster.kubectl("apply", "--server-side", "-f", str(data / "config/components/crd/bases"))
    own_cluster.wait_for_kinds("kueue.x-k8s.io", 11)
    programs = [str(Path(sys.executable).parent), *(str(binary(name).parent) for name in ("kubectl", "helm"))]
    path = os.pathsep.join([*programs, os.environ["PATH"]])
    environment = os.environ | GIVEN | {"PATH": path, "KUBECONFIG": str(own_cluster.kubeconfig), "OMP_NUM_THREADS": "1"}
    said = {}
    for command in commands(page):
        line = command.replace(" --wait", "")
        done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        said[command] = done.stdout
        if command.startswith("kubectl get gtj"):
            jobs = json.loads(own_cluster.kubectl("get", "gtj", "-n", "team-a", "-o", "json").stdout)["items"]
            assert {job["metadata"]["name"] for job in jobs} == {"vae-digits", "gan-digits"}
            assert {job["spec"]["compute"]["queue"] for job in jobs} == {"training"}
            shipped = json.loads(own_cluster.kubectl("get", "computeprofiles", "-o", "json").stdout)["items"]
            names = {one["metadata"]["name"] for one in shipped}
            assert {name for job in jobs for name in job["spec"]["compute"]["profiles"]} <= names
    (planned,) = [text for command, text in said.items() if command.startswith("gtj plan")]
    assert "$" in planned, "no price"
    assert "GiB" in planned
