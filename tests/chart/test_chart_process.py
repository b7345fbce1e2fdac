"""The command of the chart's Deployment, as a process: its arguments are understood and its probes are where the kubelet will ask."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.chart.conftest import KUBERAY_CRDS
from tests.chart.helm import CHART, NAMESPACE, RELEASE, ROOT, objects, on
from tests.chart.test_chart_metrics import queries
from tests.cluster.control_plane import ControlPlane, free_ports

pytestmark = pytest.mark.slow


def asked(url: str) -> tuple[int, str]:
    """Status 0 while nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def until(url: str, wanted: int, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 60
    while True:
        status, said = asked(url)
        if status == wanted:
            return said
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, (status, said, log.read_text())
        time.sleep(0.1)


def test_the_operator_waits_for_kuberay_and_is_then_ready(server: ControlPlane, tmp_path: Path) -> None:
    if not KUBERAY_CRDS.is_dir():
        pytest.skip(f"KubeRay's definitions are not in {KUBERAY_CRDS}; set GENTRAIN_KUBERAY_CRDS")
    on(server, "install", RELEASE, str(CHART), "--create-namespace")
    server.wait_for_kinds("gentrain.dev", 2)
    container = objects()["Deployment", RELEASE]["spec"]["template"]["spec"]["containers"][0]
    (port,) = free_ports(1)
    assert container["command"][0] == "python3"
    assert container["ports"] == [{"name": "metrics", "containerPort": 8080}]
    arguments = [one.replace("8080", str(port)) for one in container["args"]]
    token = server.kubectl("-n", NAMESPACE, "create", "token", RELEASE).stdout.strip()
    command = [sys.executable, *container["command"][1:], *arguments, f"--kubeconfig={server.write_kubeconfig('operator', token)}"]
    environment = os.environ | {"POD_NAMESPACE": NAMESPACE, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'operator'}"}
    log = tmp_path / "operator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output, env=environment)
    try:
        live, ready = (f"http://127.0.0.1:{port}{container[f'{one}Probe']['httpGet']['path']}" for one in ("liveness", "readiness"))
        assert until(ready, 503, process, log).startswith("waiting for")
        assert until(live, 200, process, log) == "ok"
        server.kubectl("apply", "--server-side", "-f", str(KUBERAY_CRDS))
        until(ready, 200, process, log)
        server.kubectl("-n", NAMESPACE, "wait", "lease/gentrain-operator", "--for=create", "--timeout=60s")  # ready comes before the lease
        served = set(re.findall(r"^# TYPE (\w+)", asked(f"http://127.0.0.1:{port}/metrics")[1], re.MULTILINE))
        wanted = {name for _, query in queries() for name in re.findall(r"\bgentrain_\w+", query)}
        assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in wanted} <= served
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    lease = server.kubectl("-n", NAMESPACE, "get", "lease", "gentrain-operator", "-o", "jsonpath={.spec.holderIdentity}").stdout
    assert lease == "", "released for whoever comes next"
