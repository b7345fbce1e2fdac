"""A job's spec as the operator can use it: its own, or when that became unusable the one that the attempt under way was started with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from gentrain_operator.conditions import Condition, settled
from gentrain_operator.kube.resource import Object
from trainjobs.api.job import Job, Spec
from trainjobs.api.rules import check

# What is read fresh while an attempt runs; whatever else changes concerns the next one.
FRESH = ("suspend", "activeDeadlineSeconds", "budget", "ttlSecondsAfterFinished")
VOLUME, FILE = "job", "job.json"  # as rayjob.py mounts it


def spec_of(job: Object) -> tuple[Spec | None, str]:
    """The spec, or what is wrong with it. Fields this operator does not know, of a newer CRD, are ignored."""
    content = {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": {"name": job["metadata"]["name"]}, "spec": job.get("spec")}
    try:
        parsed = Job.model_validate(content, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return None, f"GTJ0102 {'.'.join(map(str, first['loc']))}: {first['msg']}"
    problems = check(parsed)
    return (None, problems[0].error().line()) if problems else (parsed.spec, "")


def configmap_of(rayjob: Object) -> str:
    """The name of the ConfigMap with the job as a RayJob's pods read it; "" when it names none."""
    template = ((rayjob.get("spec") or {}).get("rayClusterSpec") or {}).get("headGroupSpec", {}).get("template", {})
    volumes: Sequence[Object] = template.get("spec", {}).get("volumes") or ()
    return next((str(one["configMap"]["name"]) for one in volumes if one.get("name") == VOLUME and "configMap" in one), "")


def content(configmap: Object) -> Object:
    """The job in a ConfigMap; {} when there is none that can be read."""
    try:
        found: Any = json.loads((configmap.get("data") or {}).get(FILE, ""))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def last_valid(job: Object, frozen: Object) -> Spec | None:
    """The frozen job's spec with those of the job's fresh fields that can be used; None when there is no frozen one."""
    live = job.get("spec") or {}
    spec = dict(frozen.get("spec") or {})
    found, _ = spec_of({**job, "spec": spec})
    for name in FRESH if found is not None else ():
        changed = {key: value for key, value in spec.items() if key != name} | ({name: live[name]} if name in live else {})
        better, _ = spec_of({**job, "spec": changed})
        if better is not None:
            spec, found = changed, better
    return found


def with_accepted(job: Object, status: Object, condition: Condition, now: str) -> Object:
    """A status that says of an attempt under way also that its job's spec is unusable. One that has ended for good does not care."""
    if any(one["type"] == "Finished" for one in status["conditions"]):
        return status
    before = (job.get("status") or {}).get("conditions") or ()
    told = settled(before, [condition], job["metadata"].get("generation", 0), now)
    said = {one["type"] for one in told}  # Ready as well: two of one type no server takes
    others = [one for one in status["conditions"] if one["type"] not in said]
    summary = {"summary": {**status["summary"], "reason": condition.reason}} if "summary" in status else {}
    return {**status, "conditions": [*told, *others], **summary}
