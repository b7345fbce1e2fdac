"""What was foreseen of a run, beside what it measured."""

from __future__ import annotations

from typing import Any

from trainjobs.api.job import Job
from trainjobs.plan.batch import cut
from trainjobs.plan.forecast import ANNOTATION, Actual, Line, beside, chosen, read
from trainjobs.run.folder import Run
from trainjobs.run.numbers import number


def lines(run: Run) -> list[Line]:
    """Of a run folder: what was foreseen of the way that it went, beside what it measured."""
    job, told = run.job(), run.progress()
    metadata: Any = job.get("metadata")
    ways = read((metadata.get("annotations") or {}).get(ANNOTATION)) if isinstance(metadata, dict) else []
    ranks, stage, step = told.get("workers"), told.get("stage"), number(told.get("step"))
    if not ways or not isinstance(ranks, int) or not isinstance(stage, int) or not step:
        return []
    try:
        spec = Job.model_validate(job).spec
    except ValueError:  # of another version
        return []
    ranks *= spec.compute.each
    way = chosen(ways, ranks, stage, cut(spec.training.batch, ranks, most=spec.compute.worker_range[1] * spec.compute.each).micro)
    if way is None:
        return []
    steps = number((told.get("spent") or {}).get("steps"))
    memory = told.get("memoryBytes") if told.get("device") == "cuda" else None
    return list(beside(way, Actual(memory if isinstance(memory, int) else None, steps / step if steps else None)))
