"""What `gtj plan` said of a job: kept beside the runs, and written into the job when it starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from trainjobs.api.job import Job
from trainjobs.cli.output import RUNS
from trainjobs.cli.pace import differing
from trainjobs.plan.forecast import ANNOTATION, Forecast, read, text
from trainjobs.plan.options import Option
from trainjobs.run.folder import document
from trainjobs.run.progress import replace


def place(name: str) -> Path:
    return RUNS / f"{name}.plan.json"


def keep(job: Job, found: Iterable[Option], basis: Callable[[Option], str]) -> None:
    """Leave a plan where `annotated` finds it. Raises OSError."""
    steps = job.spec.training.steps
    ways = [
        Forecast(
            one.pool.name,
            one.cut.workers,
            one.stage,
            one.cut.micro,
            one.need,
            (3600 * one.hours[0] / steps, 3600 * one.hours[1] / steps) if one.hours else None,
            one.usd,
            basis(one),
        )
        for one in found
    ]
    place(job.metadata.name).parent.mkdir(exist_ok=True)
    content = {"spec": job.spec.model_dump(mode="json", by_alias=True, exclude_none=True), "plan": text(ways)}
    replace(place(job.metadata.name), json.dumps(content))


def annotated(job: Job) -> Job:
    """The job with what was planned for it, where that was for the same network, batch and precision; costs are of as many steps."""
    kept = document(place(job.metadata.name))
    plan, spec = kept.get("plan"), kept.get("spec")
    if not isinstance(plan, str) or not isinstance(spec, dict) or differing(job, spec) or ANNOTATION in job.metadata.annotations:
        return job
    steps = (spec.get("training") or {}).get("steps")
    if steps != job.spec.training.steps:
        plan = text(Forecast(**{**vars(one), "usd": None}) for one in read(plan))
    metadata = job.metadata.model_copy(update={"annotations": {**job.metadata.annotations, ANNOTATION: plan}})
    return job.model_copy(update={"metadata": metadata})
