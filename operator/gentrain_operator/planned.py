"""What was planned of a job, in its annotation, beside what its trainer reports: parts of `status.plan`. Both are untrusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.observed import Observed
from trainjobs.api.job import Spec
from trainjobs.plan.forecast import ANNOTATION, Actual, Forecast, beside, way


def told(seen: Observed, spec: Spec, heard: Mapping[str, object], cost: Object, *, done: bool = False) -> Object:
    """`status.plan` with what was `heard` of the attempt, and with the comparison; {} where there is neither. What was measured before
    stays where nobody reports any more."""
    before: Object = (seen.job.get("status") or {}).get("plan") or {}
    news = {name: value for name, value in heard.items() if value is not None}
    plan = {**{name: value for name, value in before.items() if name not in ("predicted", "missed")}, **news}
    more = compared(seen.job, spec, plan, seen.report or {}, cost.get("usd"), done=done)
    if more:
        more["measured"] = {**before.get("measured", {}), **more["measured"]}
    return {"plan": {**plan, **more}} if news or more else {}


def compared(job: Object, spec: Spec, plan: Object, report: Mapping[str, Any], usd: object, *, done: bool = False) -> Object:
    """`predicted`, `measured` and `missed` of the attempt with this `plan`; {} without a plan for the way that it goes. `usd`: the cost so
    far, as the status has it; `done`: it is the whole."""
    planned, stage = (job["metadata"].get("annotations") or {}).get(ANNOTATION), plan.get("zeroStage")
    workers = plan.get("workers") or spec.compute.worker_range[0]
    found = None if stage is None else way(planned, spec, workers, stage, str(plan.get("profile", "")))
    if found is None:
        return {}
    actual = Actual(_memory(report), _seconds(report), _usd(usd), done)
    missed = "; ".join(str(line) for line in beside(found, actual) if line.missed)
    measured: Object = {"memoryBytes": actual.memory, "stepSeconds": f"{actual.seconds:.3g}" if actual.seconds else None}
    out: Object = {"predicted": _predicted(found), "measured": {name: value for name, value in measured.items() if value is not None}}
    return {**out, **({"missed": clean(missed, 512)} if missed else {})}


def _predicted(foreseen: Forecast) -> Object:
    found: Object = {"memoryBytes": foreseen.memory}
    found |= {"stepSeconds": f"{foreseen.seconds[0]:.3g} to {foreseen.seconds[1]:.3g}"} if foreseen.seconds else {}
    found |= {"usd": f"{foreseen.usd[0]:.2f} to {foreseen.usd[1]:.2f}"} if foreseen.usd else {}
    return {**found, **({"basis": clean(foreseen.basis, 253)} if foreseen.basis else {})}


def _memory(report: Mapping[str, Any]) -> int | None:
    found = report.get("memoryBytes")
    return found if report.get("device") == "cuda" and type(found) is int and 0 < found < 2**53 else None


def _seconds(report: Mapping[str, Any]) -> float | None:
    spent, step = report.get("spent"), report.get("step")
    steps = spent.get("steps") if isinstance(spent, dict) else None
    if isinstance(steps, bool) or not isinstance(steps, int | float) or type(step) is not int or step <= 0 or not 0 < steps < 1e12:
        return None
    return steps / step


def _usd(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
