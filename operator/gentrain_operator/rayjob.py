"""The RayJob of one attempt, and the ConfigMap its pods read the job from. Pure: the same job, profile and attempt give the same objects.

Shaped by what KubeRay 1.7 does with it:

- `backoffLimit: 0`: KubeRay's own retries are immediate and blind; ours know why.
- `SidecarMode`: the submitter lives in the head pod, so that the loss of the head ends the attempt at once and visibly.
- `shutdownAfterJobFinishes`: needed by `suspend` and Kueue.
- The entrypoint is argv joined by shlex: KubeRay hands it unescaped to a shell. No user's string is part of it, nor of `runtimeEnvYAML`,
  which is not used at all. What users set reaches the pods as environment variables and volumes.
- The Ray container comes first. Nothing may be changed after creation: Kueue edits the pod templates and KubeRay ignores later changes.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from typing import Any

from gentrain_operator import fragment, nodepools
from gentrain_operator.kube.resource import CONFIGMAPS, RAYJOBS, Object
from gentrain_operator.names import labels, rayjob_name
from gentrain_operator.placing import allowed, kept_to, together
from gentrain_operator.quantity import amount, cpu, memory
from trainjobs.api.job import Spec
from trainjobs.api.profile import ProfileSpec
from trainjobs.plan.forecast import ANNOTATION, read

RAY_VERSION = "2.60.0"
PORT = 8090  # of /progress and /metrics on the head pod
MOUNT = "/etc/gentrain"
ENTRYPOINT = ("python", "-m", "trainjobs.head", f"{MOUNT}/job.json", "--port", str(PORT), "--linger", "20")
HEAD = "ray-head"  # the container
SUBMITTER = "ray-job-submitter"  # the container that KubeRay puts beside the head: it ends as the driver does
NONCE = "gentrain.dev/nonce"  # annotation: what the head repeats in its record of a failure
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
ELASTIC = "kueue.x-k8s.io/elastic-job"  # annotation (Kueue 0.17, pkg/workloadslicing): RayJobs and RayClusters among others
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
UID = 1000
# Of every container; with what a pod sets for all its containers it meets the `restricted` pod security standard.
RESTRICTED: Object = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

_KEEP = {
    # A pod that trains is expensive to move: node autoscalers are asked not to.
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}


def frozen(job: Object, spec: Spec) -> str:
    """What the trainer reads: the job with every default written out, of which nothing changes while an attempt runs."""
    metadata = {"name": job["metadata"]["name"], "namespace": job["metadata"]["namespace"], "uid": job["metadata"]["uid"]}
    planned = (job["metadata"].get("annotations") or {}).get(ANNOTATION)
    if isinstance(planned, str) and read(planned):
        metadata["annotations"] = {ANNOTATION: planned}
    content = {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": metadata,
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    return json.dumps(content, sort_keys=True, indent=1)


def configmap(job: Object, spec: Spec, attempt: int) -> Object:
    """The immutable ConfigMap of an attempt; its name says which content it has."""
    content = frozen(job, spec)
    digest = hashlib.sha256(content.encode()).hexdigest()[:10]
    return {
        "apiVersion": CONFIGMAPS.api_version,
        "kind": CONFIGMAPS.kind,
        "metadata": {"name": f"{rayjob_name(job['metadata']['name'], attempt)}-{digest}", "labels": labels(job, attempt)},
        "immutable": True,
        "data": {"job.json": content},
    }


def rayjob(job: Object, spec: Spec, profile: ProfileSpec, attempt: int, image: str, avoided: Sequence[str] = ()) -> Object:
    """The RayJob of an attempt. `image` is the trainer's when neither job nor profile names one; `avoided`: nodes no pod goes to."""
    low, high = spec.compute.worker_range
    # Kueue admits a job that scales itself only where it is told to, behind a gate of its own. Else quota is asked for the largest group,
    # which still shrinks when it loses a pod.
    scales = spec.compute.elastic and (spec.compute.queue is None or spec.compute.queue_elastic)
    marks = labels(job, attempt)
    # Whoever counts cost or sets policy by labels meets the RayJob first, and Kueue reads its priority class there.
    metadata: Object = {
        "name": rayjob_name(job["metadata"]["name"], attempt),
        "labels": {**spec.pod.labels, **marks},
        "annotations": {**spec.pod.annotations, NONCE: _nonce(job, attempt)},
    }
    if spec.compute.queue:
        metadata["labels"][QUEUE_LABEL] = spec.compute.queue
        metadata["annotations"] |= {ELASTIC: "true"} if scales else {}
    if spec.compute.priority_class:
        metadata["labels"][PRIORITY_LABEL] = spec.compute.priority_class
    pod = _Pod(job, spec, profile, attempt, spec.pod.image or profile.image or image, avoided, scales=scales)
    cluster: Object = {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": pod.template(
                HEAD,
                {"cpu": profile.head.cpu, "memory": profile.head.memory},
                nodepools.head(profile),
                ports={"gcs-server": 6379, "dashboard": 8265, "client": 10001, "progress": PORT},
            ),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": low if scales else high,
                "minReplicas": low,
                "maxReplicas": high,
                "rayStartParams": {},
                "template": pod.template(
                    "ray-worker", worker_resources(spec, profile), nodepools.workers(profile, spec.compute.gpus_per_worker)
                ),
            }
        ],
    }
    if scales:
        # The container that KubeRay adds is like ours, else a namespace with the `restricted` standard refuses the head.
        home = {"name": "HOME", "value": "/tmp"}
        mounts = [{"name": "tmp", "mountPath": "/tmp"}]
        options = {"version": "v2", "securityContext": dict(RESTRICTED), "env": [home], "volumeMounts": mounts}
        cluster |= {"enableInTreeAutoscaling": True, "autoscalerOptions": options}
    return {
        "apiVersion": RAYJOBS.api_version,
        "kind": RAYJOBS.kind,
        "metadata": metadata,
        "spec": {
            "entrypoint": shlex.join(ENTRYPOINT),
            "submissionMode": "SidecarMode",
            "shutdownAfterJobFinishes": True,
            # Time to read what the pods say about their end before they are deleted.
            "ttlSecondsAfterFinished": 10,
            "backoffLimit": 0,
            # Kueue admits by turning this off; without a queue nobody would.
            "suspend": spec.compute.queue is not None,
            "rayClusterSpec": cluster,
        },
    }


def nonce_of(rayjob: Object) -> str:
    """What the failure record of the attempt must repeat; "" of an attempt that an operator of before made."""
    return str((rayjob.get("metadata", {}).get("annotations") or {}).get(NONCE, ""))


def _nonce(job: Object, attempt: int) -> str:
    """Against what a user's code prints, not against who wants to be wrong about their own job."""
    return hashlib.sha256(f"{job['metadata']['uid']}/{attempt}/failure".encode()).hexdigest()[:16]


def configmaps_of(rayjob: Object) -> list[str]:
    """The names of the ConfigMaps that the operator made for a RayJob: of its kind of name, so that no one's own is among them."""
    template = rayjob["spec"].get("rayClusterSpec", {}).get("headGroupSpec", {}).get("template", {})
    named = [volume["configMap"]["name"] for volume in template.get("spec", {}).get("volumes") or () if volume.get("configMap")]
    return [name for name in named if name.startswith(f"{rayjob['metadata']['name']}-")]


def worker_resources(spec: Spec, profile: ProfileSpec) -> dict[str, str]:
    """A worker's share of a node: as many parts as it uses accelerators, or the whole node of a CPU pool. Requests are limits."""
    gpus, node, accelerator = spec.compute.gpus_per_worker, profile.node, profile.accelerator
    if gpus == 0 or accelerator.per_node == 0:
        share = {"cpu": node.cpu, "memory": node.memory}
    else:
        share = {
            "cpu": cpu(amount(node.cpu) * gpus / accelerator.per_node),
            "memory": memory(amount(node.memory) * gpus / accelerator.per_node),
        }
    return {**share, accelerator.resource: str(gpus)} if gpus else share


class _Pod:
    """What head and worker pods have in common."""

    def __init__(
        self, job: Object, spec: Spec, profile: ProfileSpec, attempt: int, image: str, avoided: Sequence[str], *, scales: bool
    ) -> None:
        self._job, self._spec, self._profile, self._attempt, self._image, self._scales = job, spec, profile, attempt, image, scales
        self._avoided = avoided

    def template(self, name: str, share: dict[str, str], place: fragment.Fragment, ports: dict[str, int] | None = None) -> Object:
        spec, profile = self._spec, self._profile
        resources = {**share, **place.resources}
        container: Object = {
            "name": name,
            "image": self._image,
            "env": [
                *self._environment(place.environment),
                *([{"name": "GENTRAIN_NONCE", "value": _nonce(self._job, self._attempt)}] if name == HEAD else []),
            ],
            "resources": {"requests": resources, "limits": resources},
            "securityContext": allowed(RESTRICTED, place.capabilities),
            "volumeMounts": [
                {"name": "job", "mountPath": MOUNT, "readOnly": True},
                {"name": "shm", "mountPath": "/dev/shm"},
                {"name": "tmp", "mountPath": "/tmp"},
                *(
                    {"name": f"claim-{number}", "mountPath": volume.mount_path, "readOnly": volume.read_only}
                    for number, volume in enumerate(spec.pod.volumes)
                ),
                *(
                    {"name": f"files-{number}", "mountPath": files.mount_path, "readOnly": True}
                    for number, files in enumerate(spec.pod.files)
                ),
                *fragment.mounts(place, place),
            ],
        }
        if place.claim_template:
            container["resources"] = {**container["resources"], "claims": [{"name": "fabric"}]}
        if ports:
            container["ports"] = [{"name": port, "containerPort": number} for port, number in ports.items()]
        body: Object = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": profile.grace_period_seconds,
            # The autoscaler of a group that scales asks the API server for pods; nothing else in these pods may.
            "automountServiceAccountToken": self._scales and name == HEAD,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": UID,
                "runAsGroup": UID,
                "fsGroup": UID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "job", "configMap": {"name": configmap(self._job, spec, self._attempt)["metadata"]["name"]}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": profile.node.shared_memory}},
                {"name": "tmp", "emptyDir": {}},
                *(
                    {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": volume.claim_name, "readOnly": volume.read_only}}
                    for number, volume in enumerate(spec.pod.volumes)
                ),
                *(
                    {"name": f"files-{number}"}
                    | ({"secret": {"secretName": files.secret}} if files.secret else {"configMap": {"name": files.config_map}})
                    for number, files in enumerate(spec.pod.files)
                ),
                *fragment.volumes(place),
            ],
        }
        if place.sidecars:
            body["initContainers"] = fragment.daemons(place)
        if place.claim_template:
            body["resourceClaims"] = [{"name": "fabric", "resourceClaimTemplateName": place.claim_template}]
        account = spec.pod.service_account_name or profile.service_account_name
        if account:
            body["serviceAccountName"] = account
        if spec.pod.image_pull_secrets:
            body["imagePullSecrets"] = [{"name": secret} for secret in spec.pod.image_pull_secrets]
        # The job's own wishes are for the workers: the head runs where the profile puts it, on a cheap and lasting node.
        selector = place.selector if name == HEAD else {**spec.pod.node_selector, **place.selector}
        if selector:
            body["nodeSelector"] = selector
        affinity = kept_to(place, {} if name == HEAD else spec.pod.affinity or {}, self._avoided)
        if affinity:
            body["affinity"] = affinity
        priority = spec.pod.priority_class_name or profile.priority_class_name
        if priority:
            body["priorityClassName"] = priority
        if spec.pod.runtime_class_name:
            body["runtimeClassName"] = spec.pod.runtime_class_name
        if place.tolerations:
            body["tolerations"] = place.tolerations
        marks = {**spec.pod.labels, **place.labels, **labels(self._job, self._attempt)}
        notes = {**_KEEP, **place.annotations, **spec.pod.annotations, **({} if name == HEAD else together(spec.compute.topology))}
        return {"metadata": {"labels": marks, "annotations": notes}, "spec": body}

    def _environment(self, pool: dict[str, str]) -> list[dict[str, Any]]:
        """What the operator sets, what the job sets, and what the node pool needs where the job says nothing else."""
        # The drain must end before the kubelet's patience does.
        drain = max(self._profile.grace_period_seconds - 10, 5)
        ours = [
            {"name": "HOME", "value": "/tmp"},
            {"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(drain)},
            {"name": "GENTRAIN_ATTEMPT", "value": str(self._attempt)},
            # How long the trainer has for a checkpoint: after the drain Ray ends it.
            {"name": "GENTRAIN_GRACE_SECONDS", "value": str(drain)},
        ]
        taken = {one["name"] for one in ours}
        theirs: list[dict[str, Any]] = []
        for one in self._spec.pod.env:
            if one.name in taken:
                continue
            if one.secret_key_ref is not None:
                reference = {"name": one.secret_key_ref.name, "key": one.secret_key_ref.key}
                theirs.append({"name": one.name, "valueFrom": {"secretKeyRef": reference}})
            else:
                # Kubernetes expands $(NAME) in a value; doubled, a dollar is a dollar.
                theirs.append({"name": one.name, "value": (one.value or "").replace("$", "$$")})
        said = {one["name"] for one in (*ours, *theirs)}
        return [*ours, *theirs, *({"name": name, "value": value} for name, value in pool.items() if name not in said)]
