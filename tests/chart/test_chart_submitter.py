"""KubeRay's container beside a head, in a namespace that enforces the restricted standard: let in, with the privileges taken away."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.chart.helm import CHART, RELEASE, on, text
from tests.cluster.control_plane import ControlPlane

SUBMITTER = "ray-job-submitter"
POLICY = "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"


def head(name: str, *, marked: bool = True, beside: dict[str, Any] | None = None) -> str:
    """A head pod as KubeRay 1.7 makes it of our template."""
    ours = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"gentrain.dev/job": "faces"} if marked else {}},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {"name": "ray-head", "image": "a", "securityContext": ours},
                {"name": SUBMITTER, "image": "a", **(beside or {})},
                {"name": "autoscaler", "image": "a", "securityContext": ours},
            ],
        },
    }
    return json.dumps(pod)


def test_the_policy_is_for_clusters_that_serve_it() -> None:
    assert "kind: MutatingAdmissionPolicy\n" in text(POLICY)
    assert "MutatingAdmissionPolicy" not in text()
    assert "MutatingAdmissionPolicy" not in text(POLICY, "--set=submitterPolicy.enabled=false")
    assert "values: [team-a]" in text(POLICY, "--set=watchNamespaces={team-a}", "--show-only=templates/submitterpolicy.yaml")


@pytest.mark.slow
def test_a_head_is_let_into_a_restricted_namespace(server: ControlPlane) -> None:
    server.kubectl("create", "namespace", "team")
    server.kubectl("label", "namespace", "team", "pod-security.kubernetes.io/enforce=restricted")

    def created(pod: str) -> str:
        done = server.kubectl("-n", "team", "create", "-f", "-", "-o", "json", stdin=pod, check=False)
        return done.stdout if done.returncode == 0 else done.stderr

    assert "violates PodSecurity" in created(head("before"))
    on(server, "install", RELEASE, str(CHART), "--create-namespace")
    deadline = time.monotonic() + 60
    # The API server learns of a policy a moment after it was written.
    while "violates PodSecurity" in (said := created(head("faces"))):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    contexts = {one["name"]: one.get("securityContext") for one in json.loads(said)["spec"]["containers"]}
    assert contexts[SUBMITTER] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert contexts["ray-head"]["readOnlyRootFilesystem"] is True
    # Nobody else's pods are touched, and what says something of itself is left as it is.
    assert "violates PodSecurity" in created(head("theirs", marked=False))
    assert "violates PodSecurity" in created(head("theirs-too", beside={"securityContext": {"runAsNonRoot": True}}))
