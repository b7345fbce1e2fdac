"""What is installed into a cluster before anything is trained: KubeRay, an S3 server, a pod to look around from, and Gentrain."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.kuberay_standin import CRDS
from tests.e2e.cluster import Cluster, Object

KUBERAY, STORAGE, SYSTEM, RELEASE = "kuberay", "storage", "gentrain-system", "gentrain"
KEY, SECRET = "e2e-key", "e2e-secret"
ENDPOINT = f"http://s3.{STORAGE}.svc.cluster.local:7070"
PROFILE = "small"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
    "readOnlyRootFilesystem": True,
}


def namespace(name: str) -> Object:
    """One in which the API server refuses every pod that is not restricted."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def deployment(name: str, space: str, container: Object, *, labels: Object | None = None, account: str = "default") -> Object:
    marks = {"app.kubernetes.io/name": name, **(labels or {})}
    pod: Object = {
        "serviceAccountName": account,
        "automountServiceAccountToken": account != "default",
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"fsGroup": 1000},
        "containers": [
            {"name": name, "imagePullPolicy": "IfNotPresent", "securityContext": {**RESTRICTED, "runAsUser": 1000}, **container}
        ],
    }
    if container.get("volumeMounts"):
        pod["volumes"] = [{"name": one["name"], "emptyDir": {}} for one in container["volumeMounts"]]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {"metadata": {"labels": marks}, "spec": pod},
        },
    }


def kuberay(cluster: Cluster, image: str) -> None:
    """KubeRay's operator from its image, as a pod: from outside it could not resolve the head Services. Returns when it is at work."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    account: Object = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "kuberay-operator", "namespace": KUBERAY}}
    binding: Object = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "kuberay-operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "kuberay-operator", "namespace": KUBERAY}],
    }
    container = {
        "image": image,
        "args": ["--enable-leader-election=false"],
        "ports": [{"containerPort": 8080, "name": "http"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "readinessProbe": {"httpGet": {"path": "/metrics", "port": "http"}, "periodSeconds": 2},
    }
    cluster.apply(namespace(KUBERAY), account, binding, *map(idle_kind, ("RayService",)))
    cluster.apply(deployment("kuberay-operator", KUBERAY, container, account="kuberay-operator"))
    cluster.kubectl("rollout", "status", "deployment/kuberay-operator", "-n", KUBERAY, "--timeout=180s")


def idle_kind(kind: str) -> Object:
    """A definition of one of KubeRay's other kinds, which its operator watches and nobody uses here."""
    plural = f"{kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.ray.io"},
        "spec": {
            "group": "ray.io",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}, "subresources": {"status": {}}}
            ],
        },
    }


def storage(cluster: Cluster) -> None:
    """The S3 server, and a pod with Python and boto3 in a namespace that has nothing to do with jobs: `Toolbox`."""
    server = {
        "image": cluster.images.s3,
        "args": ["--access", KEY, "--secret", SECRET, "--port", ":7070", "posix", "--sidecar", "/data/meta", "/data/buckets"],
        "ports": [{"containerPort": 7070, "name": "s3"}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "readinessProbe": {"tcpSocket": {"port": "s3"}, "periodSeconds": 2},
    }
    prepare = {
        "name": "folders",
        "image": cluster.images.trainer,
        "command": ["mkdir", "-p", "/data/meta", "/data/buckets"],
        "securityContext": {**RESTRICTED, "runAsUser": 1000},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    s3 = deployment("s3", STORAGE, server)
    s3["spec"]["template"]["spec"]["initContainers"] = [prepare]
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s3", "namespace": STORAGE},
        "spec": {"selector": {"app.kubernetes.io/name": "s3"}, "ports": [{"port": 7070}]},
    }
    environment = {
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    toolbox = {
        "image": cluster.images.trainer,
        "command": ["sleep", "infinity"],
        "env": [{"name": name, "value": value} for name, value in {"HOME": "/tmp", **environment}.items()],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    }
    cluster.apply(namespace(STORAGE), service, s3, deployment("toolbox", STORAGE, toolbox))
    for name in ("s3", "toolbox"):
        cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", STORAGE, "--timeout=300s")


class Toolbox:
    """A pod of another namespace than any job's: makes buckets, looks into them, and knocks at doors."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def python(self, code: str, *, check: bool = True) -> str:
        return self._cluster.kubectl("exec", "-n", STORAGE, "deployment/toolbox", "--", "python", "-c", code, check=check).stdout

    def bucket(self, name: str) -> None:
        there = "[one['Name'] for one in s3.list_buckets()['Buckets']]"
        self.python(f"import boto3; s3 = boto3.client('s3'); {name!r} in {there} or s3.create_bucket(Bucket={name!r})")

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        listing = f"boto3.client('s3').get_paginator('list_objects_v2').paginate(Bucket={bucket!r}, Prefix={prefix!r})"
        code = f"import boto3, json; print(json.dumps([o['Key'] for p in {listing} for o in p.get('Contents', ())]))"
        found: list[str] = json.loads(self.python(code))
        return found

    def reaches(self, address: str, port: int) -> bool:
        """Whether a TCP connection from here gets anywhere within three seconds."""
        code = (
            f"import socket\ntry:\n  socket.create_connection(({address!r}, {port}), 3)\n  print('open')\nexcept OSError as e:\n  print(e)"
        )
        return self.python(code).strip() == "open"


# What a program prints that asks `url` with the headers {{}}: the status of the answer.
CLIENT = """
import os, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(urllib.request.Request({url!r}, headers={{}}), timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def profile(name: str = PROFILE, **changes: object) -> Object:
    """Pods that fit a small machine, many at a time: they ask for little CPU and may use what is there."""
    spec = {
        "node": {"cpu": "100m", "memory": "3Gi", "sharedMemory": "512Mi"},
        "head": {"cpu": "100m", "memory": "3Gi"},
        "gracePeriodSeconds": 20,  # of which Ray drains the node for ten
        **changes,
    }
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": name}, "spec": spec}


def values(cluster: Cluster) -> list[str]:
    """What `helm install` is told."""
    repository, _, tag = cluster.images.operator.rpartition(":")
    given = {"image.repository": repository, "image.tag": tag, "trainerImage": cluster.images.trainer, "test.profile": PROFILE}
    # What a preflight would find first is here to be found by an attempt, and its seconds are not those that are measured here.
    return [*(f"--set-string={name}={value}" for name, value in given.items()), "--set=preflight.enabled=false"]


def gentrain(cluster: Cluster, *options: str, chart: Path) -> None:
    """The operator by Helm; returns when both replicas are ready."""
    cluster.run(
        *("helm", "upgrade", "--install", RELEASE, str(chart), "--namespace", SYSTEM, "--create-namespace"),
        *("--wait", "--timeout", "180s", *values(cluster), *options),
    )
    cluster.kubectl("wait", "--for=condition=Established", "crd/generativetrainingjobs.gentrain.dev", "--timeout=60s")
    cluster.apply(profile())
