"""Mount paths and environment variables of the pods that are not the job's to take: the operator, KubeRay or Ray set them.

Two containers' mounts at one path are refused by the API server when the pods are made, long after the job was accepted; a variable that
was set twice would be dropped without a word, or switch off the token that guards Ray. So both are refused with the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainjobs.api.compute import Env, Files, Pod, Volume
from trainjobs.api.rule import Breach, Rule

# Taken, or so near to the root that what the image or the kubelet put there would be hidden.
TAKEN = r"^/(tmp|dev|dev/shm|etc|etc/gentrain|proc|sys)?/?$"
# Nothing can be mounted below these.
BELOW = r"^/(etc/gentrain|proc|sys)/"
CROOKED = r"//|/\.\.?(/|$)|:"

# Set by the operator, by KubeRay for its own, or by Ray to know who may speak to it.
VARIABLES = (
    r"^(HOME|FQ_RAY_IP|REDIS_PASSWORD|RAY_(ADDRESS|IP|PORT|CLUSTER_NAME|NODE_TYPE_NAME|CLOUD_INSTANCE_ID|DASHBOARD_ADDRESS|JOB_SUBMISSION_ID"
    r"|GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S|AUTH_.*|auth_.*)|KUBERAY_.*|GENTRAIN_.*)$"
)


def path_is_free(volume: Volume | Files) -> Iterator[Breach]:
    path = volume.mount_path
    if re.search(TAKEN, path) or re.search(BELOW, path):
        yield Breach(("mountPath",), f"{path} is taken in the pods", "the operator or the system mounts there", "mount it elsewhere: /data")
    elif re.search(CROOKED, path):
        why = "two writings of one path would meet in the pods"
        yield Breach(("mountPath",), f"{path} is not a plain path", why, "write it without //, . and .. and without a colon")


def paths_differ(pod: Pod) -> Iterator[Breach]:
    mounts = [
        *(("volumes", index, volume.mount_path) for index, volume in enumerate(pod.volumes)),
        *(("files", index, files.mount_path) for index, files in enumerate(pod.files)),
    ]
    seen: set[str] = set()
    for field, index, mount_path in mounts:
        path = mount_path.removesuffix("/")
        if path in seen:
            how = "give each claim, Secret and ConfigMap a path of its own"
            yield Breach((field, index, "mountPath"), f"{path} is mounted twice", "a path shows one thing", how)
        seen.add(path)


def variable_is_free(env: Env) -> Iterator[Breach]:
    if re.search(VARIABLES, env.name):
        why = "the operator, KubeRay or Ray sets it"
        yield Breach(("name",), f"{env.name} is not yours to set", why, "take it out, or use another name")


# Two paths that are one, but for a slash at the end.
_SAME = "(a.mountPath == b.mountPath || a.mountPath + '/' == b.mountPath || a.mountPath == b.mountPath + '/')"

RULES = (
    *(
        Rule(
            f"spec.pod.{field}.*",
            "GTJ0129",
            path_is_free,
            f"!self.mountPath.matches(r'{TAKEN}') && !self.mountPath.matches(r'{BELOW}') && !self.mountPath.matches(r'{CROOKED}')",
            "mountPath is taken in the pods (/tmp, /dev/shm, /etc/gentrain, /proc, /sys and what holds them), or is no plain path",
        )
        for field in ("volumes", "files")
    ),
    Rule(
        "spec.pod",
        "GTJ0129",
        paths_differ,
        f"self.volumes.all(a, self.volumes.filter(b, {_SAME}).size() == 1 && !self.files.exists(b, {_SAME}))"
        f" && self.files.all(a, self.files.filter(b, {_SAME}).size() == 1)",
        "two mounts at one mountPath",
    ),
    Rule(
        "spec.pod.env.*",
        "GTJ0129",
        variable_is_free,
        f"!self.name.matches(r'{VARIABLES}')",
        "HOME, RAY_ADDRESS, RAY_AUTH_*, KUBERAY_*, GENTRAIN_* and what else KubeRay sets is not yours to set",
    ),
)
