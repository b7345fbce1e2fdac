"""What was foreseen of a run, beside what it measured."""

from __future__ import annotations

from typing import Any

from trainjobs.api.job import Job
from trainjobs.plan.forecast import ANNOTATION, Actual, Line, beside, way
from trainjobs.run.folder import Run
from trainjobs.run.numbers import number


def lines(run: Run) -> list[Line]:
    """Of a run folder: what was foreseen of the way that it went, beside what it measured."""
    job, told = run.job(), run.progress()
    metadata: Any = job.get("metadata")
    planned = (metadata.get("annotations") or {}).get(ANNOTATION) if isinstance(metadata, dict) else None
    workers, stage, step = told.get("workers"), told.get("stage"), number(told.get("step"))
    if not planned or not isinstance(workers, int) or not isinstance(stage, int) or not step:
        return []
    try:
        spec = Job.model_validate(job).spec
    except ValueError:  # of another version
        return []
    found = way(planned, spec, workers, stage)
    if found is None:
        return []
    steps = number((told.get("spent") or {}).get("steps"))
    memory = told.get("memoryBytes") if told.get("device") == "cuda" else None
    return list(beside(found, Actual(memory if isinstance(memory, int) else None, steps / step if steps else None)))
