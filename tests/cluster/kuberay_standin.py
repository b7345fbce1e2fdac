"""A scripted stand-in for the KubeRay operator: walks a RayJob through the statuses that KubeRay 1.7 writes, as a test tells it.

It writes what KubeRay writes, its traps included: no conditions and no observedGeneration; `ready` that stays when workers are lost; a lost
head that reads AppFailed; a stopped job that ends as Complete; a message that is wiped on the way. Pods are real objects made from the
RayJob's own templates, so that the API server and pod security judge them; nobody runs them.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from gentrain_operator.kube.client import Client
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import PODS, RAYJOBS, Object

# KubeRay's definitions, which are not part of this project.
CRDS = Path(os.environ.get("GENTRAIN_KUBERAY_CRDS", Path(__file__).parents[3] / "shared" / "kuberay" / "crds"))
MANAGER = "kuberay"
START, EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z", "2026-01-01T01:00:00Z"


class KubeRay:
    """Acts on the RayJobs of one namespace, when told."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    def rayjobs(self) -> dict[str, Object]:
        return {one["metadata"]["name"]: one for one in self._client.list(RAYJOBS, self._namespace)["items"]}

    def initialize(self, name: str, started: str = START, *, workers: bool = True) -> None:
        """New -> Initializing: the cluster exists, its pods are pending. `startTime` is set here already, before there is a pod. The head
        comes first; without `workers` they are still to come, with the next call."""
        job = self._client.get(RAYJOBS, self._namespace, name)
        self._write(
            name,
            jobDeploymentStatus="Initializing",
            rayClusterName=f"{name}-x1y2z",
            jobId=f"{name}-id",
            startTime=started,
            message="",
            reason="",
        )
        cluster = job["spec"]["rayClusterSpec"]
        self._pod(job, f"{name}-head", cluster["headGroupSpec"]["template"], "head")
        for group in cluster["workerGroupSpecs"] if workers else ():
            for number in range(group["replicas"]):
                self._pod(job, f"{name}-worker-{number}", group["template"], "worker")

    def run(self, name: str, head_ip: str = "127.0.0.1", ready: str = START) -> None:
        """Initializing -> Running: head and all workers run, since `ready`; the driver was submitted."""
        job = self._client.get(RAYJOBS, self._namespace, name)
        workers = sum(group["replicas"] for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"])
        for pod in self.pods(name):
            address = {"podIP": head_ip} if pod["metadata"]["labels"]["ray.io/node-type"] == "head" else {}
            self.pod_status(pod["metadata"]["name"], {"phase": "Running", **address})
        cluster = {
            "state": "ready",
            "head": {"podIP": head_ip, "podName": f"{name}-head"},
            "desiredWorkerReplicas": workers,
            "readyWorkerReplicas": workers,
            "stateTransitionTimes": {"ready": ready},
        }
        self._write(name, jobDeploymentStatus="Running", jobStatus="RUNNING", rayClusterStatus=cluster, message="Job is running.")

    def lose_worker(self, name: str) -> None:
        """A worker is gone: `state` goes on saying ready."""
        cluster = self._client.get(RAYJOBS, self._namespace, name)["status"]["rayClusterStatus"]
        self._write(name, rayClusterStatus={**cluster, "readyWorkerReplicas": cluster["readyWorkerReplicas"] - 1})

    def succeed(self, name: str) -> None:
        self._write(
            name,
            jobDeploymentStatus="Complete",
            jobStatus="SUCCEEDED",
            endTime=LATE,
            message="Job finished successfully.",
        )
        self.clean_up(name)

    def fail(self, name: str, message: str, *, clean_up: bool = True) -> None:
        """The entrypoint ended with an error; the message carries the end of its log, in which the head writes the attempt's nonce."""
        job = self._client.get(RAYJOBS, self._namespace, name)
        nonce = job["metadata"].get("annotations", {}).get("gentrain.dev/nonce")
        message = message.replace("gentrain-failure: {", f'gentrain-failure: {{"nonce": "{nonce}", ') if nonce else message
        text = f"Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n{message}"
        self._write(
            name,
            jobDeploymentStatus="Failed",
            jobStatus="FAILED",
            reason="AppFailed",
            message=text,
            endTime=EARLY,
            failed=1,
        )
        if clean_up:
            self.clean_up(name)

    def lose_head(self, name: str) -> None:
        """In SidecarMode a lost head fails the job at once, under the reason of a failed application."""
        self._write(name, jobDeploymentStatus="Failed", reason="AppFailed", message="Ray head pod not found.", endTime=EARLY)
        self.clean_up(name)

    def stop(self, name: str) -> None:
        """Somebody stopped the Ray job: that ends as Complete."""
        self._write(name, jobDeploymentStatus="Complete", jobStatus="STOPPED", endTime=EARLY, message="Job was stopped.")
        self.clean_up(name)

    def refuse(self, name: str, why: str) -> None:
        self._write(name, jobDeploymentStatus="ValidationFailed", reason="ValidationFailed", message=why)

    def suspend(self, name: str) -> None:
        """Follows spec.suspend: the cluster is deleted abruptly, the status starts over, but for the startTime of before."""
        job = self._client.get(RAYJOBS, self._namespace, name)
        assert job["spec"]["suspend"] is True
        self.clean_up(name)
        body = {"jobDeploymentStatus": "Suspended", "jobStatus": "", "message": "", "reason": ""}
        body |= {"startTime": job["status"]["startTime"]} if "startTime" in job.get("status", {}) else {}
        self._apply(name, body)

    def clean_up(self, name: str) -> None:
        """Deletes the cluster's pods."""
        for pod in self.pods(name):
            self._client.delete(PODS, self._namespace, pod["metadata"]["name"], uid=pod["metadata"]["uid"])

    def delete(self, name: str) -> None:
        """The RayJob goes away by itself (TTL), or by hand, its pods with it."""
        job = self._client.get(RAYJOBS, self._namespace, name)
        self._client.delete(RAYJOBS, self._namespace, name, uid=job["metadata"]["uid"])
        self.clean_up(name)

    def pods(self, name: str) -> list[Object]:
        return list(self._client.list(PODS, self._namespace, labels=f"ray.io/cluster={name}-x1y2z")["items"])

    def pod_status(self, pod: str, status: Object) -> None:
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "status": status}
        self._client.apply(PODS, self._namespace, body, manager=MANAGER, subresource="status")

    def _pod(self, job: Object, name: str, template: Object, kind: str) -> None:
        metadata = copy.deepcopy(template["metadata"])
        metadata["name"] = name
        metadata["labels"] |= {"ray.io/cluster": f"{job['metadata']['name']}-x1y2z", "ray.io/node-type": kind}
        try:
            self._client.create(PODS, self._namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
        except ApiError as error:
            if not error.conflict:
                raise

    def _write(self, name: str, **fields: Any) -> None:
        """Changes fields of a RayJob's status and keeps the others."""
        status = self._client.get(RAYJOBS, self._namespace, name).get("status") or {}
        self._apply(name, {**status, **fields})

    def _apply(self, name: str, status: Object) -> None:
        body = {"apiVersion": RAYJOBS.api_version, "kind": RAYJOBS.kind, "metadata": {"name": name}, "status": status}
        self._client.apply(RAYJOBS, self._namespace, body, manager=MANAGER, subresource="status")
