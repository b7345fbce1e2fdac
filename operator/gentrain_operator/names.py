"""Names and labels of what belongs to a job. Names come from the job's name and the attempt, never from other text of a user."""

from __future__ import annotations

import hashlib
import re

from gentrain_operator.kube.resource import Object

JOB_LABEL = "gentrain.dev/job"
ATTEMPT_LABEL = "gentrain.dev/attempt"
MANAGED_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "gentrain-operator"
SELECTOR = f"{MANAGED_LABEL}={MANAGED_BY}"

RAYJOB_LENGTH = 47  # KubeRay appends to it and needs the result to be a label


def rayjob_name(job: str, attempt: int) -> str:
    """`<job>-a<attempt>` where KubeRay allows it: up to 47 characters, a letter first, no dots. Else trimmed, and kept unique by a hash."""
    suffix = f"-a{attempt}"
    plain = job + suffix
    if len(plain) <= RAYJOB_LENGTH and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", plain):
        return plain
    return _hashed(job, RAYJOB_LENGTH - len(suffix)) + suffix


def preflight_name(job: str) -> str:
    """`<job>-preflight`, a pod: trimmed, and kept unique by a hash, where that is no name of a host."""
    plain = f"{job}-preflight"
    return plain if len(plain) <= 63 and "." not in plain else f"{_hashed(job, 53)}-preflight"


def label_value(job: str) -> str:
    """The job's name as a label value: itself up to 63 characters, else trimmed and hashed."""
    return job if len(job) <= 63 else _hashed(job, 63)


def labels(job: Object, attempt: int) -> dict[str, str]:
    """What every object and every pod of an attempt carries."""
    return {JOB_LABEL: label_value(job["metadata"]["name"]), ATTEMPT_LABEL: str(attempt), MANAGED_LABEL: MANAGED_BY}


def attempt_of(child: Object) -> int:
    """The attempt an object belongs to, from its name, which unlike its labels nobody can change; 0 for a name that is not ours."""
    match = re.search(r"-a([1-9][0-9]{0,5})$", child["metadata"]["name"])
    return int(match[1]) if match else 0


def _hashed(name: str, length: int) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    kept = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[: length - 11].strip("-")
    return f"j-{kept}-{digest}"
