"""Why a run is where it is, from its record alone: what the operator and the cluster knew of it is gone. It reads the folder, no more."""

from __future__ import annotations

from typing import Any

from trainjobs.api.codes import CODES
from trainjobs.api.errors import JobError
from trainjobs.cli.cluster.reasons import Explanation
from trainjobs.cli.line import position
from trainjobs.report.planned import lines
from trainjobs.run.folder import INTERRUPTED, LIVE, Run
from trainjobs.run.numbers import duration, instant

WARNINGS = 3  # of the timeline, the last ones


def explained(run: Run, now: float) -> Explanation:
    """Total: there is always an answer."""
    phase, progress = run.phase(), run.progress()
    failure = run.failure() if phase == "Failed" else None
    where = _saved(run, progress)
    if failure is not None:
        return _failed(run, failure, where)
    steps = f"{position(progress)} steps" if progress.get("totalSteps") else "no step was made"
    if phase == INTERRUPTED or (phase in LIVE and not run.in_use()):
        at = instant(progress.get("updatedAt"))
        last = f"the last that is known of it is {duration(now - at)} old" if at else "nothing is known of when it ended"
        how = ("the same gtj run, or the job on its cluster, goes on from the newest checkpoint",)
        why = (last, *where, *_warnings(run))
        return Explanation(f"{steps}, and nobody is training it", why, how, (f"gtj logs {run.place}",), None, True)
    warning = str(progress.get("warning") or progress.get("checkpointFailure") or "")
    code = warning[:7] if warning[:7] in CODES else None
    message = str(progress.get("message") or "")
    why = (*((message,) if message else ()), *where, *((warning,) if warning else ()), *(() if warning else _warnings(run)))
    why = (*why, *(f"planned: {line}" for line in lines(run) if line.missed))
    return Explanation(steps, why, next=(f"gtj explain {code}",) if code else (f"gtj report {run.place}",), code=code, fault=bool(warning))


def _failed(run: Run, failure: dict[str, Any], where: tuple[str, ...]) -> Explanation:
    error = JobError.from_dict({"what": "", **failure}) if failure["code"] in CODES else None
    log = str(failure.get("logTail") or "")
    # The traceback of an error that is told in words would only say where in our code it was raised; `gtj logs` has it.
    tail = () if f"JobError: {failure['code']} " in log else log.strip().splitlines()[-5:]
    who = [f"{name} {failure[name]}" for name in ("rank", "step") if isinstance(failure.get(name), int)]
    said = [str(failure.get(name)) for name in ("why", "where") if failure.get(name)]
    why = (*said, *((f"first at {', '.join(who)}",) if who else ()), *where, *(f"log: {line}" for line in tail))
    rank = failure.get("rank")
    log_of = f"gtj logs {run.place}" + (f" --rank {rank}" if isinstance(rank, int) else "")
    how = (str(failure["how"]),) if failure.get("how") else ()
    following = (f"gtj explain {failure['code']}",) if error is not None else ()
    return Explanation(error.what if error else str(failure["code"]), why, how, (*following, log_of), str(failure["code"]), True)


def _saved(run: Run, progress: dict[str, Any]) -> tuple[str, ...]:
    saved = progress.get("checkpoint")
    if not isinstance(saved, dict) or "step" not in saved:
        return ("it saved no checkpoint",)
    return (f"newest checkpoint: step {saved['step']}, {run.checkpoints_uri()}/{saved.get('uri', '')}".rstrip("/"),)


def _warnings(run: Run) -> tuple[str, ...]:
    """What the timeline warns of, and which workers were lost."""
    told = [event for event in run.attempts() if event.get("event") in ("warning", "worker-lost", "rolled back")]
    return tuple(f"{event['event']}: {event.get('message', '')}" for event in told[-WARNINGS:])
