"""A job of a cluster as text and as data: the same words, columns and live line as a local run's. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainjobs.api.errors import CODES, JobError
from trainjobs.api.job import FAMILIES
from trainjobs.cli.line import eta, losses, position, throughput
from trainjobs.cli.output import coloured, entry, folded, painted
from trainjobs.run.numbers import duration, instant, short, size

Object = Mapping[str, Any]
EVENTS = 6
HEADER = ("NAME", "FAMILY", "PHASE", "PROGRESS", "LOSS", "ETA", "AGE")
OVER = ("Succeeded", "Failed")


def name_of(job: Object) -> str:
    return str(job["metadata"]["name"])


def status_of(job: Object) -> dict[str, Any]:
    found: dict[str, Any] = job.get("status") or {}
    return found


def within(value: Any, *keys: str) -> Any:
    """What stands at the keys, or None: a job that was made under another definition may have anything there, and a list of all
    namespaces meets it."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def phase(job: Object) -> str:
    """The operator's phase; Deleting when the job is on its way out, Pending before anybody looked at it."""
    if job["metadata"].get("deletionTimestamp"):
        return "Deleting"
    return str(status_of(job).get("phase") or "Pending")


def family(job: Object) -> str:
    return next((name for name in FAMILIES if within(job, "spec", name) is not None), "-")


def condition(job: Object, type_: str) -> dict[str, Any] | None:
    """One condition, or None when the job has none of that type."""
    return next((one for one in status_of(job).get("conditions") or () if one.get("type") == type_), None)


def is_true(job: Object, type_: str) -> bool:
    return (condition(job, type_) or {}).get("status") == "True"


def progress_of(job: Object) -> dict[str, Any]:
    """What `trainjobs.cli.line` reads: a local run's progress.json, made from the status. Numbers are numbers again."""
    status = status_of(job)
    reported = status.get("progress") or {}
    now, said = phase(job), str(status.get("message") or "")
    out: dict[str, Any] = {
        "phase": now,
        "message": now.lower() if said.lower() in ("", now.lower()) else f"{now.lower()}: {said}",
        "step": reported.get("step", 0),
        "totalSteps": reported.get("totalSteps") or within(job, "spec", "training", "steps"),
        "metrics": {one["name"]: numeric(one["value"]) for one in reported.get("metrics") or ()},
        "etaSeconds": reported.get("etaSeconds"),
        "startedAt": instant(status.get("startedAt")),
        "attempt": status.get("attempts"),
    }
    rate = reported.get("throughput")
    if rate:
        out["throughput"] = {"value": numeric(rate.get("value")), "unit": rate.get("unit")}
    return {key: value for key, value in out.items() if value is not None}


def numeric(text: object) -> object:
    """The number that a text of the status stands for. NaN and infinity stay words, as in metrics.jsonl."""
    if text in ("nan", "inf", "-inf"):
        return text
    try:
        return float(str(text))
    except ValueError:
        return None


def cells(job: Object, now: float) -> tuple[str, ...]:
    """A row under HEADER."""
    progress = progress_of(job)
    begun = bool((status_of(job).get("progress") or {}).get("step"))
    loss = losses(progress).removeprefix("loss ") or "-"
    left = eta(progress).removeprefix("ETA ") if phase(job) == "Running" else ""
    created = instant(job["metadata"].get("creationTimestamp"))
    age = "-" if created is None else duration(now - created)
    return name_of(job), family(job), coloured(phase(job)), position(progress) if begun else "-", loss, left or "-", age


def row(job: Object) -> dict[str, Any]:
    """The same for programs, under the names that a local run's row has."""
    progress = progress_of(job)
    return {
        "name": name_of(job),
        "namespace": job["metadata"].get("namespace"),
        "family": family(job),
        "phase": phase(job),
        "step": progress["step"],
        "totalSteps": progress.get("totalSteps"),
        "metrics": progress["metrics"],
        "startedAt": progress.get("startedAt"),
    }


def as_data(job: Object, events: Sequence[Object]) -> dict[str, Any]:
    """All of the status, flattened as a local run's is, and the last events."""
    status = {key: value for key, value in status_of(job).items() if key not in ("progress", "summary", "phase", "startedAt")}
    return {**row(job), **progress_of(job), **status, "failure": status.get("failure"), "events": [event_data(one) for one in events]}


def event_data(event: Object) -> dict[str, Any]:
    return {"time": moment_of(event), "type": event.get("type"), "reason": event.get("reason"), "message": event.get("message")}


def moment_of(event: Object) -> str:
    """When an event was last seen, as the server writes it."""
    seen = ((event.get("series") or {}).get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next((moment for moment in (*seen, event["metadata"].get("creationTimestamp")) if moment), ""))


def described(job: Object, events: Sequence[Object], now: float, width: int) -> Iterator[str]:
    """`gtj status` of a job on a cluster: lines of at most `width` columns where the words allow it."""
    status, progress, here = status_of(job), progress_of(job), phase(job)
    yield f"{painted(name_of(job), bold=True)}  {family(job)}  {coloured(here)}"
    said = str(status.get("message") or "")
    if here not in ("Running", *OVER) and said and said.lower() != here.lower():
        yield from folded("  doing      ", said, width)
    if status.get("progress"):
        yield entry("progress", "  ".join(part for part in (position(progress), eta(progress) if here == "Running" else "") if part))
    if progress["metrics"]:
        yield from folded("  metrics    ", "  ".join(f"{key} {short(value)}" for key, value in sorted(progress["metrics"].items())), width)
    if throughput(progress):
        yield entry("speed", throughput(progress))
    yield from numbers(job, now, width)
    # What holds needs no words, and what the message above says is not said twice.
    news = [one for one in status.get("conditions") or () if one.get("message") and one["message"] != said]
    if news and here not in OVER:
        yield "conditions"
    for one in news if here not in OVER else ():
        yield from folded(f"  {one['type']:<17}", told(one), width)
    if events:
        yield "events"
    for event in events[-EVENTS:]:
        yield from folded(f"  {ago(moment_of(event), now):>10}  ", f"{event.get('reason', '?')}: {event.get('message') or ''}", width)
    failure = status.get("failure")
    if failure and here == "Failed":
        yield painted(failed(failure), "red")


def numbers(job: Object, now: float, width: int) -> Iterator[str]:
    """Machine, attempts, checkpoint and cost, where there is something to say."""
    status = status_of(job)
    plan, cost, restarts = status.get("plan") or {}, status.get("cost") or {}, status.get("restarts") or {}
    parts = [f"{plan['workers']} worker(s)" if plan.get("workers") else "", f"profile {plan['profile']}" if plan.get("profile") else ""]
    parts += [f"ZeRO stage {plan['zeroStage']}" if plan.get("zeroStage") is not None else ""]
    if any(parts):
        yield entry("machine", ", ".join(part for part in parts if part))
    if status.get("attempts"):
        why = ", ".join(f"{count} {kind}" for kind, count in sorted(restarts.items()) if count)
        yield entry("attempt", f"{status['attempts']}" + (f", restarted after failures: {why}" if why else ""))
    saved = status.get("checkpoint")
    if saved:
        at = instant(saved.get("committedAt"))
        yield entry("checkpoint", f"step {saved['step']}" + (f", {duration(now - at)} ago" if at else "") + f", {saved['uri']}")
    source = cost.get("source")
    if cost and cost.get("usd", "unknown") != "unknown":
        yield entry("cost", f"${cost['usd']} (${cost.get('ratePerHourUSD', '?')} an hour)" + (f", {source}" if source else ""))
    elif source:
        yield entry("cost", str(source))
    yield from planned(plan, width)
    ray = status.get("ray") or {}
    if ray.get("rayJob"):
        yield entry("ray", f"RayJob {ray['rayJob']}" + (f", dashboard {ray['dashboard']}" if ray.get("dashboard") else ""))


def planned(plan: Object, width: int) -> Iterator[str]:
    """What was foreseen beside what was measured, and what lies outside of it."""
    foreseen, measured = plan.get("predicted") or {}, plan.get("measured") or {}
    rows = (("memoryBytes", "memory", size), ("stepSeconds", "a step", "{} s".format))
    for key, name, said in rows:
        if key in foreseen:
            yield entry("planned", f"{name} {said(foreseen[key])}" + (f", {said(measured[key])} measured" if key in measured else ""))
    if "usd" in foreseen:
        yield entry("planned", f"cost ${foreseen['usd']}, of the training alone")
    if plan.get("missed"):
        yield from (painted(line, "yellow") for line in folded("  missed     ", str(plan["missed"]), width))


def told(one: Object) -> str:
    """A condition in a few words: "Unschedulable: GTJ0202 ..." or "yes: step 500"."""
    head = "yes" if one.get("status") == "True" else str(one.get("reason") or "no")
    return f"{head}: {one['message']}" if one.get("message") else head


def ago(moment: object, now: float) -> str:
    at = instant(moment)
    return f"{duration(now - at)} ago" if at is not None else ""


def failure_error(failure: Object) -> JobError:
    """A failure of the status as the error that `gtj run` would have ended with. A code from a newer operator reads as GTJ0214."""
    code = str(failure.get("code"))
    where = ", ".join(f"{name} {failure[name]}" for name in ("rank", "node", "step") if failure.get(name) is not None)
    known = code if code in CODES else "GTJ0214"
    what = str(failure.get("summary") or CODES[known].title)
    return JobError(known, what, where=where, why=str(failure.get("detail") or ""), how=str(failure.get("resolution") or ""))


def failed(failure: Object) -> str:
    from trainjobs.cli.diagnostics import plain

    return plain(failure_error(failure))


def ending(job: Object) -> str:
    """The last line of a job that is over: phase, steps, how long from its start to its end."""
    status, progress = status_of(job), progress_of(job)
    began, ended = instant(status.get("startedAt")), instant(status.get("finishedAt"))
    parts = [f"step {progress['step']}/{progress.get('totalSteps', '?')}"]
    parts += [losses(progress)] if losses(progress) else []
    parts += [duration(ended - began)] if began is not None and ended is not None else []
    return f"{coloured(phase(job))}  {name_of(job)}: {', '.join(parts)}"
