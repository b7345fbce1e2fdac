"""The RayJob and the ConfigMap of an attempt."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest

from gentrain_operator.kube.resource import Object
from gentrain_operator.rayjob import ENTRYPOINT, configmap, rayjob
from trainjobs.api.job import Job, Spec
from trainjobs.api.profile import ProfileSpec

JOB: Object = {
    "apiVersion": "gentrain.dev/v1alpha1",
    "kind": "GenerativeTrainingJob",
    "metadata": {"name": "job", "namespace": "team", "uid": "u1"},
}


def spec(**more: Any) -> Spec:
    return Spec.model_validate({"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 10}, **more})


def test_the_entrypoint_survives_a_shell() -> None:
    """KubeRay hands it to `bash -ce`."""
    said = subprocess.run(
        ["bash", "-ce", f"printf '%s\\n' {rayjob(JOB, spec(), ProfileSpec(), 1, 'i')['spec']['entrypoint']}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split("\n")[:-1] == list(ENTRYPOINT)


def test_no_text_of_a_user_reaches_a_shell() -> None:
    nasty = "$(reboot)`x`"
    env = [{"name": "A", "value": nasty}, {"name": "HOME", "value": nasty}, {"name": "S", "secretKeyRef": {"name": "s", "key": "k"}}]
    made = rayjob(JOB, spec(pod={"env": env}, custom=None, data={"source": "file:///" + "x"}), ProfileSpec(), 1, "i")
    assert "runtimeEnvYAML" not in made["spec"]
    assert made["spec"]["entrypoint"] == shlex.join(ENTRYPOINT)
    container = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    by_name = {one["name"]: one for one in container["env"]}
    # Kubernetes expands $(X) in values; $$ is a dollar.
    assert by_name["A"]["value"] == "$$(reboot)`x`"
    assert by_name["HOME"]["value"] == "/tmp"
    assert by_name["S"]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "k"}}
    assert len(by_name) == len(container["env"])


def test_every_pod_is_restricted_and_marked() -> None:
    cluster = rayjob(JOB, spec(), ProfileSpec(), 3, "i")["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    for template in templates:
        body = template["spec"]
        assert body["automountServiceAccountToken"] is False
        assert body["securityContext"]["runAsNonRoot"] is True
        for container in body["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"] == container["resources"]["requests"]
        assert template["metadata"]["labels"]["gentrain.dev/attempt"] == "3"
        assert body["restartPolicy"] == "Never"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_drain_ends_before_the_kubelets_patience() -> None:
    made = rayjob(JOB, spec(), ProfileSpec(grace_period_seconds=30), 1, "i")["spec"]["rayClusterSpec"]
    worker = made["workerGroupSpecs"][0]["template"]["spec"]
    drain = next(one["value"] for one in worker["containers"][0]["env"] if one["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S")
    grace = next(one["value"] for one in worker["containers"][0]["env"] if one["name"] == "GENTRAIN_GRACE_SECONDS")
    assert (worker["terminationGracePeriodSeconds"], drain, grace) == (30, "20", "20")


def test_an_elastic_group_is_autoscaled() -> None:
    made = rayjob(JOB, spec(compute={"workers": "2-8", "gpusPerWorker": 0}), ProfileSpec(), 1, "i")["spec"]["rayClusterSpec"]
    group = made["workerGroupSpecs"][0]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (2, 2, 8)
    assert made["enableInTreeAutoscaling"] is True
    ours, autoscaler = made["headGroupSpec"]["template"]["spec"]["containers"][0], made["autoscalerOptions"]
    assert autoscaler["securityContext"] == ours["securityContext"]
    assert autoscaler["volumeMounts"] == [mount for mount in ours["volumeMounts"] if mount["mountPath"] == "/tmp"]
    assert made["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert group["template"]["spec"]["automountServiceAccountToken"] is False


def test_an_elastic_group_in_a_queue_gets_quota_for_its_largest_size() -> None:
    made = rayjob(JOB, spec(compute={"workers": "2-8", "gpusPerWorker": 0, "queue": "team"}), ProfileSpec(), 1, "i")["spec"][
        "rayClusterSpec"
    ]
    group = made["workerGroupSpecs"][0]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (8, 2, 8)
    assert "enableInTreeAutoscaling" not in made
    assert made["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("job_image", "profile_image", "used"), [("a", "b", "a"), (None, "b", "b"), (None, None, "default")], ids=["job", "profile", "chart"]
)
def test_whose_image_is_used(job_image: str | None, profile_image: str | None, used: str) -> None:
    made = rayjob(JOB, spec(pod={"image": job_image}), ProfileSpec(image=profile_image), 1, "default")
    assert made["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"] == used


def test_the_frozen_job_is_whole_and_its_name_says_its_content() -> None:
    first, again, other = (configmap(JOB, spec(training={"steps": steps}), 1) for steps in (10, 10, 11))
    assert first == again
    assert first["metadata"]["name"] != other["metadata"]["name"]
    frozen = Job.model_validate_json(first["data"]["job.json"])
    assert frozen.spec == spec()
    volumes = rayjob(JOB, spec(), ProfileSpec(), 1, "i")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert {"name": "job", "configMap": {"name": first["metadata"]["name"]}} in volumes


WISHES: dict[str, Any] = {
    "labels": {"team": "vision", "azure.workload.identity/use": "true", "kueue.x-k8s.io/priority-class": "high"},
    "annotations": {"sidecar.istio.io/inject": "false", "cluster-autoscaler.kubernetes.io/safe-to-evict": "true"},
    "nodeSelector": {"zone": "a", "pool": "mine"},
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "files": [{"secret": "token", "mountPath": "/run/hf"}, {"configMap": "conf", "mountPath": "/etc/mine"}],
}


def test_what_a_job_asks_of_its_pods_reaches_them() -> None:
    made = rayjob(JOB, spec(pod=WISHES), ProfileSpec(selector={"pool": "gpu"}), 3, "i")
    cluster = made["spec"]["rayClusterSpec"]
    head, worker = cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]
    for marked in (made, head, worker):
        assert WISHES["labels"].items() <= marked["metadata"]["labels"].items()
        assert marked["metadata"]["labels"]["gentrain.dev/attempt"] == "3"
        assert WISHES["annotations"].items() <= marked["metadata"]["annotations"].items()
    for template in (head, worker):
        body = template["spec"]
        assert (body["priorityClassName"], body["runtimeClassName"]) == ("high", "nvidia")
        volumes = {one["name"]: one for one in body["volumes"]}
        assert volumes["files-0"]["secret"] == {"secretName": "token"}
        assert volumes["files-1"]["configMap"] == {"name": "conf"}
        mounts = {one["name"]: one for one in body["containers"][0]["volumeMounts"]}
        assert mounts["files-0"] == {"name": "files-0", "mountPath": "/run/hf", "readOnly": True}
    # The head is on the profile's lasting nodes, whatever a job wants for its workers; and a job does not leave its pool.
    assert not {"nodeSelector", "affinity"} & set(head["spec"])
    assert worker["spec"]["nodeSelector"] == {"zone": "a", "pool": "gpu"}
    assert worker["spec"]["affinity"] == WISHES["affinity"]


def test_a_job_that_asks_nothing_has_the_plain_pods() -> None:
    made = rayjob(JOB, spec(), ProfileSpec(), 1, "i")
    body = made["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert set(made["metadata"]["annotations"]) == {"gentrain.dev/nonce"}
    assert not {"nodeSelector", "affinity", "priorityClassName", "runtimeClassName"} & set(body)


def test_an_elastic_job_in_a_queue_scales_only_where_it_is_asked_to() -> None:
    def made(**compute: Any) -> tuple[Object, Object]:
        whole = rayjob(JOB, spec(compute={"workers": "2-4", "gpusPerWorker": 0, **compute}), ProfileSpec(), 1, "image")
        return whole["metadata"]["annotations"], whole["spec"]["rayClusterSpec"]

    annotations, cluster = made(queue="q", queueElastic=True)
    assert annotations["kueue.x-k8s.io/elastic-job"] == "true"
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["workerGroupSpecs"][0]["replicas"] == 2
    annotations, cluster = made(queue="q")
    assert "kueue.x-k8s.io/elastic-job" not in annotations
    assert "enableInTreeAutoscaling" not in cluster
    (group,) = cluster["workerGroupSpecs"]
    group.pop("template")
    # What Kueue counts are the replicas: it asks for its largest size, and may go on with fewer when a pod is lost.
    assert group == {"groupName": "workers", "replicas": 4, "minReplicas": 2, "maxReplicas": 4, "rayStartParams": {}}
    assert "kueue.x-k8s.io/elastic-job" not in made()[0]


def test_priority_and_topology_go_where_kueue_reads_them() -> None:
    asked = spec(compute={"queue": "q", "priorityClass": "high", "topology": {"preferred": "cloud.google.com/gce-topology-block"}})
    made = rayjob(JOB, asked, ProfileSpec(), 1, "image")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "high"
    cluster = made["spec"]["rayClusterSpec"]
    key = "kueue.x-k8s.io/podset-preferred-topology"
    assert cluster["workerGroupSpecs"][0]["template"]["metadata"]["annotations"][key] == "cloud.google.com/gce-topology-block"
    assert key not in cluster["headGroupSpec"]["template"]["metadata"]["annotations"], "a head would take a place among the workers"
