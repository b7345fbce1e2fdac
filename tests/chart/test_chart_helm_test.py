"""`helm test` by the real helm: it makes its job, and the pod's own command, under the pod's own rights, waits for the end.

Nothing runs pods here. The test does what a kubelet would: starts the container's command, and writes into the pod's status how it ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.main import Operator, Settings
from tests.chart.helm import CHART, NAMESPACE, RELEASE, ROOT, helm, on, text
from tests.cluster.binaries import binary
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kuberay_standin import KubeRay
from trainjobs.api.job import Job
from trainjobs.api.rules import check

pytestmark = pytest.mark.slow

NAME = f"{RELEASE}-test"


def hooks() -> dict[str, Any]:
    found = [one for one in yaml.safe_load_all(text("--set=watchNamespaces={team}")) if one]
    return {one["kind"]: one for one in found if one["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"}


@pytest.fixture
def at_work(kuberay: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster with the chart installed, and an operator."""
    kuberay.kubectl("create", "namespace", "team")
    kuberay.kubectl("label", "namespace", "team", "pod-security.kubernetes.io/enforce=restricted")
    on(kuberay, "install", RELEASE, str(CHART), "--create-namespace", "--set=watchNamespaces={team}")
    kuberay.wait_for_kinds("gentrain.dev", 2)
    stopped = threading.Event()
    operator = Operator(from_kubeconfig(str(kuberay.kubeconfig)), Settings("trainer", NAMESPACE, "team", port=0))
    thread = threading.Thread(target=operator.run, args=(stopped,))
    thread.start()
    yield kuberay
    stopped.set()
    thread.join(30)
    assert not thread.is_alive()


def helm_test(cluster: ControlPlane) -> subprocess.Popen[str]:
    options = [f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}", "--timeout=120s"]
    command = [str(binary("helm")), "test", RELEASE, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait(cluster: ControlPlane, *what: str) -> None:
    cluster.kubectl("-n", "team", "wait", *what, "--timeout=60s")


def played(cluster: ControlPlane) -> subprocess.CompletedProcess[str]:
    """The pod's container as a process here, and its end as the kubelet would tell it."""
    pod = json.loads(cluster.kubectl("-n", "team", "get", "pod", NAME, "-o", "json").stdout)
    (container,) = pod["spec"]["containers"]
    token = cluster.kubectl("-n", "team", "create", "token", pod["spec"]["serviceAccountName"]).stdout.strip()
    environment = os.environ | {
        "KUBECONFIG": str(cluster.write_kubeconfig("test-pod", token)),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'operator'}",
    }
    assert container["command"][0] == "python3"
    command = [sys.executable, *container["command"][1:], *container["args"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    phase = json.dumps({"status": {"phase": "Failed" if done.returncode else "Succeeded"}})
    cluster.kubectl("-n", "team", "patch", "pod", NAME, "--subresource=status", "--type=merge", "-p", phase)
    return done


def test_it_follows_a_job_to_its_end(at_work: ControlPlane) -> None:
    kuberay = KubeRay(Client(from_kubeconfig(str(at_work.kubeconfig))), "team")
    ended = []
    for end in (kuberay.succeed, lambda name: kuberay.fail(name, 'gentrain-failure: {"code": "GTJ0206", "what": "out of memory"}')):
        running = helm_test(at_work)
        wait(at_work, "--for=create", f"pod/{NAME}")
        wait(at_work, "--for=create", f"rayjob/{NAME}-a1")
        kuberay.initialize(f"{NAME}-a1")
        kuberay.run(f"{NAME}-a1")
        end(f"{NAME}-a1")
        done = played(at_work)
        said, _ = running.communicate(timeout=150)
        ended.append((done.returncode, running.returncode))
        if running.returncode:
            assert "GTJ0206" in done.stdout + done.stderr
            # What there was stays to be looked at, until the next test.
            wait(at_work, "--for=condition=Failed", f"gtj/{NAME}")
        else:
            assert "Phase:" in said
            assert "Succeeded" in said
            # What the garbage collector would take, which is not here.
            at_work.kubectl("-n", "team", "delete", "rayjobs,pods", "--all", "--grace-period=0")
    assert ended == [(0, 0), (5, 1)]


def test_its_job_is_valid_and_its_pod_may_read_that_job_only(programs: None) -> None:
    found = hooks()
    job = found["GenerativeTrainingJob"]
    known = {key: job["metadata"][key] for key in ("name", "namespace")}
    parsed = Job.model_validate({**job, "metadata": known})
    assert not check(parsed)
    assert parsed.spec.training.steps == 20
    assert parsed.spec.compute.gpus_per_worker == 0
    (rule,) = found["Role"]["rules"]
    assert rule == {"apiGroups": ["gentrain.dev"], "resources": ["generativetrainingjobs"], "resourceNames": [NAME], "verbs": ["get"]}
    assert {one["metadata"]["namespace"] for one in found.values()} == {"team"}


def test_an_installation_holds_no_hook(programs: None) -> None:
    shown = helm("template", RELEASE, str(CHART), "--skip-tests").stdout
    assert NAME not in shown
