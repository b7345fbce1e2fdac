"""The pods that a job's wishes make, as the API server judges them: all of `spec.pod`, head and workers, with the strictest of checks."""

from __future__ import annotations

from typing import Any

import pytest

from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import PODS, RAYJOBS, Object
from gentrain_operator.rayjob import rayjob
from tests.cluster.control_plane import ControlPlane
from trainjobs.api.job import Job
from trainjobs.api.profile import ProfileSpec

pytestmark = pytest.mark.slow

WISHES: dict[str, Any] = {
    "labels": {"team": "vision", "azure.workload.identity/use": "true", "kueue.x-k8s.io/priority-class": "high"},
    "annotations": {"sidecar.istio.io/inject": "false", "prometheus.io/scrape": "true"},
    "nodeSelector": {"topology.kubernetes.io/zone": "a"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}]
            }
        }
    },
    "runtimeClassName": "nvidia",
    "files": [{"secret": "token", "mountPath": "/run/hf"}, {"configMap": "conf", "mountPath": "/etc/mine"}],
}


def templates(made: Object) -> list[Object]:
    cluster = made["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


def test_everything_that_a_job_may_ask_makes_pods_that_the_server_takes(installed: ControlPlane, namespace: str) -> None:
    installed.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    installed.kubectl(
        "create", "-f", "-", stdin='{"apiVersion":"node.k8s.io/v1","kind":"RuntimeClass","metadata":{"name":"nvidia"},"handler":"nvidia"}'
    )
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}, "pod": WISHES}
    head: Object = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob"}
    job = {**head, "metadata": {"name": "job", "namespace": namespace, "uid": "u"}, "spec": spec}
    made = rayjob(job, Job.model_validate({**head, "metadata": {"name": "job"}, "spec": spec}).spec, ProfileSpec(), 1, "image")
    try:
        client.create(RAYJOBS, namespace, made, dry_run=True)
        for number, template in enumerate(templates(made)):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": f"p{number}"}, "spec": template["spec"]}
            taken = client.create(PODS, namespace, pod, dry_run=True)
            assert WISHES["labels"].items() <= taken["metadata"]["labels"].items()
        pod["spec"]["affinity"] = {"nodeAffinity": {"no": 1}}
        with pytest.raises(ApiError, match="unknown field"):
            client.create(PODS, namespace, pod, dry_run=True)
    finally:
        client.close()
