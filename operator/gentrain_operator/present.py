"""How a job's state is shown: phase, conditions, message, cost and the texts of the printer columns."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from gentrain_operator import report as reported
from gentrain_operator.conditions import Condition, settled
from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.limits import within
from gentrain_operator.spending import group
from gentrain_operator.times import parsed_time, time
from gentrain_operator.waiting import Waiting
from trainjobs.api.fields import seconds
from trainjobs.api.job import Spec
from trainjobs.plan.prices import MOST

_ACCEPTED = Condition("Accepted", True, "Accepted")


def status(
    job: Object,
    now: datetime.datetime,
    phase: str,
    conditions: Sequence[Condition],
    spec: Spec | None = None,
    changes: Object | None = None,
    message: str = "",
) -> Object:
    """The whole status to write: the old one with `changes` (None removes), with nothing in it that changes by being written again."""
    before = job.get("status") or {}
    generation = job["metadata"].get("generation", 0)
    out = {name: value for name, value in {**before, **(changes or {})}.items() if value is not None}
    bad = next((one for one in conditions if not one.status and one.message), None)
    conditions = [*conditions, *(within(spec, out.get("cost") or {}) if spec else ())]
    out |= {
        "observedGeneration": generation,
        "phase": phase,
        "message": clean(message or (bad.message if bad else "") or _line(out, phase)),
        "conditions": settled(before.get("conditions") or (), conditions, generation, time(now)),
    }
    if spec is not None:
        out["summary"] = _summary(spec, out, bad)
    return out


def conditions(
    spec: Spec,
    child: Object,
    now_status: Object,
    attempt: int,
    stuck: Waiting | None,
    now: datetime.datetime,
    wait: Condition | None = None,
    poor: str = "",
) -> tuple[str, list[Condition]]:
    """Phase and conditions of an attempt under way. `now_status` is the status as it will be; `unsaved` in it says why the last checkpoint
    could not be written, and `warning` what is not well with the training. `wait`, of a RayJob in a queue: what it waits for where
    the queue holds it. `poor`: why its budget suspends it."""
    ray = child.get("status") or {}
    deployment, job_status = ray.get("jobDeploymentStatus") or "", ray.get("jobStatus") or ""
    queued, suspended = wait is not None, bool(child["spec"].get("suspend"))
    accepted = Condition("Accepted", False, stuck.reason, stuck.message) if stuck and stuck.condition == "Accepted" else _ACCEPTED
    if spec.suspend or (suspended and not queued):
        done = deployment == "Suspended"
        return "Suspended", [accepted, suspension(poor, done=done)]
    if wait is not None and suspended:
        return "Queued", [accepted, wait]

    out = [accepted, Condition("QuotaReserved", True, "Admitted" if queued else "NotQueued"), Condition("Suspended", False, "NotSuspended")]
    cluster = ray.get("rayClusterStatus") or {}
    wanted, ready = spec.compute.worker_range[0], cluster.get("readyWorkerReplicas", 0)
    if starting(child):
        scaling = Condition("ResourcesReady", False, "ScalingUp", f"{ready} of {wanted} workers are ready")
        if stuck and stuck.condition == "ResourcesReady":
            scaling = Condition("ResourcesReady", False, stuck.reason, stuck.message)
        return "Provisioning", [*out, scaling, *_checkpoint(now_status)]

    # `state: ready` stays when a worker is lost, so the numbers are asked.
    whole = ready >= wanted
    out.append(
        Condition("ResourcesReady", whole, "Ready" if whole else "ScalingUp", "" if whole else f"{ready} of {wanted} workers are ready")
    )
    progress = now_status.get("progress") or {}
    heard, begun = (
        parsed_time(progress.get("updatedAt")),
        parsed_time(ray.get("startTime")) or parsed_time(child["metadata"].get("creationTimestamp")),
    )
    # KubeRay writes the job's end some seconds before its own: until then nothing is started, nor gone back to.
    begun_once = job_status in ("RUNNING", "SUCCEEDED", "FAILED", "STOPPED")
    if not begun_once or heard is None or (begun and heard < begun) or not progress.get("step"):
        reason = "Recovering" if attempt > 1 else "Starting"
        return ("Recovering" if attempt > 1 else "Starting"), [*out, Condition("Running", False, reason), *_checkpoint(now_status)]
    silent = (now - heard).total_seconds()
    if silent > seconds(spec.recovery.stall_timeout):
        message = f"GTJ0210 no step for {duration(silent)}, at step {progress.get('step', 0)}"
        return "Running", [*out, Condition("Running", False, "Stalled", message), *_checkpoint(now_status)]
    if progress.get("message"):
        return "Recovering", [*out, Condition("Running", False, "Recovering", progress["message"]), *_checkpoint(now_status)]
    return "Running", [*out, Condition("Running", True, "Stepping"), *_checkpoint(now_status), *_health(now_status)]


def suspension(poor: str, *, done: bool = True) -> Condition:
    """That the job is suspended, or will be: because somebody asked, or because of its budget."""
    reason = "Suspending" if not done else "BudgetReached" if poor else "Suspended"
    return Condition("Suspended", done, reason, poor or "spec.suspend is true")


def _checkpoint(status: Object) -> list[Condition]:
    saved, unsaved = status.get("checkpoint"), status.get("unsaved")
    if unsaved:
        kept = f"step {saved['step']} is kept" if saved else "there is none before it"
        return [Condition("CheckpointReady", False, "UploadFailed", f"{unsaved}; {kept}")]
    if not saved:
        return [Condition("CheckpointReady", False, "NeverSaved")]
    more = ""
    if saved.get("fitsGrace") is False:
        more = ": another one takes longer than the grace period, so a pod that is taken away costs the steps since"
    return [Condition("CheckpointReady", True, "Saved", f"step {saved['step']}{more}")]


def _health(status: Object) -> list[Condition]:
    """What the trainer warns of while it goes on; a job that nothing is said of has no such condition."""
    return [Condition("TrainingHealthy", False, "Troubled", status["warning"])] if status.get("warning") else []


def starting(child: Object) -> bool:
    """Whether the cluster is still coming up."""
    return ((child.get("status") or {}).get("jobDeploymentStatus") or "") in ("", "Initializing", "Retrying", "Waiting")


def taken_up(child: Object) -> bool:
    """Whether KubeRay has begun with it. Before, and while it is suspended, there are no pods and no time passes."""
    return ((child.get("status") or {}).get("jobDeploymentStatus") or "") not in ("", "Suspended")


def begun(child: Object) -> datetime.datetime | None:
    """When the attempt was made."""
    return parsed_time(child["metadata"].get("creationTimestamp"))


def ray(child: Object) -> Object:
    status = child.get("status") or {}
    out = {"rayJob": child["metadata"]["name"], "rayCluster": status.get("rayClusterName"), "dashboard": status.get("dashboardURL")}
    return {name: clean(value, 253) for name, value in out.items() if value}


def completed(job: Object, spec: Spec, report: Object | None) -> Object:
    """Progress of a job that succeeded: all of it, whatever the last report said."""
    last = reported.progress(report, spec.training.steps) if report else (job.get("status") or {}).get("progress") or {}
    steps = spec.training.steps
    done = {"step": steps, "totalSteps": steps, "percent": 100, "display": f"100% {steps}/{steps}"}
    saved = reported.checkpoint(report) if report else None
    return {
        "progress": {**{name: value for name, value in last.items() if name != "etaSeconds"}, **done},
        **({"checkpoint": saved} if saved else {}),
    }


def duration(length: float) -> str:
    """1h12m, 3m20s, 45s: two parts at most."""
    whole = int(length)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02}m" if minutes else f"{hours}h"
    return f"{minutes}m{rest:02}s" if minutes and rest else f"{minutes}m" if minutes else f"{rest}s"


def _line(status: Object, phase: str) -> str:
    progress = status.get("progress") or {}
    if phase not in ("Running", "Succeeded") or not progress:
        return phase.lower() if phase != "Succeeded" else "succeeded"
    parts = [f"step {progress.get('step', 0)}/{progress.get('totalSteps', 0)}"]
    loss = _loss(progress)
    parts += [f"{loss['name']} {loss['value']}"] if loss else []
    parts += [f"ETA {duration(progress['etaSeconds'])}"] if "etaSeconds" in progress else []
    return ", ".join(parts)


def _loss(progress: Object) -> Object | None:
    by_name: dict[str, Object] = {one["name"]: one for one in progress.get("metrics") or ()}
    return by_name.get("loss") or by_name.get("loss/G") or next(iter(by_name.values()), None)


def _summary(spec: Spec, status: Object, bad: Condition | None) -> Object:
    progress, restarts = status.get("progress") or {}, status.get("restarts") or {}
    loss, saved, stage = _loss(progress), status.get("checkpoint"), (status.get("plan") or {}).get("zeroStage")
    throughput, cost = progress.get("throughput"), status.get("cost") or {}
    usd, most = cost.get("usd", "unknown"), "<= " if str(cost.get("source", "")).startswith(MOST) else ""
    texts = {
        "loss": loss["value"] if loss else "",
        "eta": duration(progress["etaSeconds"]) if "etaSeconds" in progress else "",
        "gpus": str(group(status, spec) * spec.compute.gpus_per_worker),
        "restarts": str(sum(restarts.values())),
        "cost": usd if usd == "unknown" else f"{most}${usd}",
        "family": spec.family,
        "zero": str(stage) if stage is not None else "",
        "throughput": f"{throughput['value']} {throughput['unit']}" if throughput else "",
        "checkpoint": f"step {saved['step']}" if saved else "",
        "reason": bad.reason if bad else status["failure"]["code"] if status["phase"] == "Failed" and status.get("failure") else "",
    }
    return {name: text[:64] for name, text in texts.items() if text}
