"""As which user pods run: 1000 of the trainer's image, another one, or whom the cluster chooses.

OpenShift gives every namespace a range of user IDs and refuses pods that name one outside it; a pod that names none gets one of the range.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gentrain_operator.kube.resource import Object
from gentrain_operator.rayjob import UID

FIELDS = ("runAsUser", "runAsGroup", "fsGroup")


@dataclass(frozen=True)
class RunAs:
    """`group` is that of the process and of its volumes."""

    user: int
    group: int


DEFAULT = RunAs(UID, UID)


def run_as(text: str) -> RunAs | None:
    """What `--run-as` says: "1000:1000", or "" for whom the cluster chooses. ValueError for anything else, and for root."""
    if not text:
        return None
    found = re.fullmatch(r"([1-9]\d{0,9}):(\d{1,10})", text)
    if not found:
        raise ValueError(f'"{text}" is no user and group such as 1000:1000 (root, 0, runs no jobs)')
    return RunAs(int(found[1]), int(found[2]))


def running_as(rayjob: Object, who: RunAs | None) -> Object:
    """The RayJob with pods of that user; a new one, the given one stays as it is."""
    ids = {} if who is None else dict(zip(FIELDS, (who.user, who.group, who.group), strict=True))

    def changed(group: Object) -> Object:
        pod = group["template"]["spec"]
        kept = {name: value for name, value in pod["securityContext"].items() if name not in FIELDS}
        return {**group, "template": {**group["template"], "spec": {**pod, "securityContext": {**kept, **ids}}}}

    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = {"headGroupSpec": changed(cluster["headGroupSpec"]), "workerGroupSpecs": [changed(one) for one in cluster["workerGroupSpecs"]]}
    return {**rayjob, "spec": {**rayjob["spec"], "rayClusterSpec": {**cluster, **groups}}}
