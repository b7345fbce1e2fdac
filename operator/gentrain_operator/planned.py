"""What was planned of a job, in its annotation, beside what its trainer reports: parts of `status.plan`. Both are untrusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.observed import Observed
from trainjobs.api.job import Spec
from trainjobs.plan.batch import cut
from trainjobs.plan.forecast import ANNOTATION, Actual, Forecast, beside, chosen, read


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
    ways = read((job["metadata"].get("annotations") or {}).get(ANNOTATION))
    ranks, stage = (plan.get("workers") or spec.compute.worker_range[0]) * spec.compute.each, plan.get("zeroStage")
    if not ways or stage is None or spec.training.batch.global_ % ranks:
        return {}
    micro = cut(spec.training.batch, ranks, most=spec.compute.worker_range[1] * spec.compute.each).micro
    way = chosen(ways, ranks, stage, micro, str(plan.get("profile", "")))
    if way is None:
        return {}
    actual = Actual(_memory(report), _seconds(report), _usd(usd), done)
    missed = "; ".join(str(line) for line in beside(way, actual) if line.missed)
    measured: Object = {"memoryBytes": actual.memory, "stepSeconds": f"{actual.seconds:.3g}" if actual.seconds else None}
    out: Object = {"predicted": _predicted(way), "measured": {name: value for name, value in measured.items() if value is not None}}
    return {**out, **({"missed": clean(missed, 512)} if missed else {})}


def _predicted(way: Forecast) -> Object:
    found: Object = {"memoryBytes": way.memory}
    found |= {"stepSeconds": f"{way.seconds[0]:.3g} to {way.seconds[1]:.3g}"} if way.seconds else {}
    found |= {"usd": f"{way.usd[0]:.2f} to {way.usd[1]:.2f}"} if way.usd else {}
    return {**found, **({"basis": clean(way.basis, 253)} if way.basis else {})}


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
