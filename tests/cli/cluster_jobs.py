"""Jobs as the operator leaves them in a cluster, for tests of what is said about them."""

from __future__ import annotations

from typing import Any

from trainjobs.cli.cluster.target import Target

NOW = 1795255569.0  # 2026-11-21T10:06:09Z
CREATED = "2026-11-21T10:00:00Z"


def condition(type_: str, status: bool, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": type_, "status": str(status), "reason": reason, "message": message, "lastTransitionTime": CREATED}


def job(phase: str = "", *conditions: dict[str, Any], spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """A job in namespace team-a; without a phase, one that no operator has looked at."""
    metadata = {"name": "faces", "namespace": "team-a", "uid": "u-1", "generation": 2, "creationTimestamp": CREATED}
    base = {"gan": {}, "training": {"steps": 1000}, "compute": {"workers": 2}}
    out: dict[str, Any] = {"metadata": metadata, "spec": {**base, **(spec or {})}}
    if phase:
        out["status"] = {"phase": phase, "observedGeneration": 2, "conditions": list(conditions), "attempts": 1, **status}
    return out


def running() -> dict[str, Any]:
    metrics = [{"name": "loss/D", "value": "0.6123"}, {"name": "loss/G", "value": "nan"}]
    progress = {"step": 250, "totalSteps": 1000, "percent": 25, "etaSeconds": 4320, "metrics": metrics}
    return job(
        "Running",
        condition("Accepted", True, "Accepted"),
        condition("ResourcesReady", True, "Ready"),
        condition("Running", True, "Stepping"),
        condition("CheckpointReady", True, "Saved", "step 200"),
        message="step 250/1000, loss/G nan, ETA 1h12m",
        startedAt="2026-11-21T10:01:00Z",
        progress={**progress, "throughput": {"value": "812.4", "unit": "samples/s"}},
        restarts={"infrastructure": 1, "application": 0},
        plan={"workers": 2, "profile": "gke-l4", "zeroStage": 2},
        checkpoint={"uri": "s3://runs/faces", "step": 200, "committedAt": "2026-11-21T10:05:09Z"},
        cost={"usd": "3.41", "gpuHours": "2.5", "ratePerHourUSD": "5.36"},
        ray={"rayJob": "faces-a1"},
    )


def failed(code: str = "GTJ0206", **more: Any) -> dict[str, Any]:
    failure = {
        "code": code,
        "class": "Application",
        "summary": "out of device memory",
        "detail": "78 GiB of 80",
        "rank": 3,
        "step": 12,
        **more,
    }
    over = [condition("Failed", True, "Failed"), condition("Finished", True, "Failed")]
    return job("Failed", *over, failure=failure, message=code, ended=1, startedAt=CREATED, finishedAt="2026-11-21T10:02:05Z")


def succeeded() -> dict[str, Any]:
    progress = {"step": 1000, "totalSteps": 1000, "percent": 100}
    over = [condition("Complete", True, "Succeeded"), condition("Finished", True, "Succeeded")]
    return job("Succeeded", *over, progress=progress, ended=1, startedAt=CREATED, finishedAt="2026-11-21T10:02:05Z")


def pod(name: str = "faces-a1-head", phase: str = "Pending", **status: Any) -> dict[str, Any]:
    labels = {"gentrain.dev/attempt": "1", "ray.io/node-type": "head" if name.endswith("head") else "worker"}
    return {
        "metadata": {"name": name, "namespace": "team-a", "uid": f"u-{name}", "labels": labels},
        "spec": {"containers": [{"name": "ray-head"}]},
        "status": {"phase": phase, **status},
    }


def command(verb: str, name: str, *more: str) -> str:
    return Target("team-a").command(verb, name, *more, namespace="team-a")
