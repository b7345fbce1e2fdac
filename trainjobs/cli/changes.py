"""What a run's job is other than its manifest says: changed by an option, or by this machine. For changes.json, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainjobs.api.job import Job
from trainjobs.api.shape import dotted
from trainjobs.cli.manifest import Change


def noted(changes: Sequence[Change], steps: int | None, before: Job, after: Job, options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By path, {"by": what changed it, "was": what the manifest says, None for nothing}. `changes` are those of --set and --steps,
    which made `before` of the manifest; `options` in words are what made `after` of it."""
    found = {dotted(change.path): {"by": said(change, steps), "was": change.was} for change in changes}
    pairs = (
        ("spec.compute.workers", before.spec.compute.workers, after.spec.compute.workers),
        ("spec.compute.gpusPerWorker", before.spec.compute.gpus_per_worker, after.spec.compute.gpus_per_worker),
        ("spec.checkpoints.resumeFrom", before.spec.checkpoints.resume_from, after.spec.checkpoints.resume_from),
    )
    for path, was, now in pairs:
        if was != now:
            # Of a value that --set had changed before, the manifest's own still counts.
            found[path] = {"by": ", ".join(options), "was": found[path]["was"] if path in found else was}
    return found


def said(change: Change, steps: int | None) -> str:
    """--steps is handed on as a --set."""
    return f"--steps {steps}" if steps and change.by == f"--set training.steps={steps}" else change.by


def options(workers: int | None, no_ray: bool, fresh: bool, cores: int) -> list[str]:
    """What can change how a job runs here, in words; the machine where no option does."""
    given = [f"--workers {workers}"] if workers else []
    given += ["--no-ray"] if no_ray else []
    given += ["--fresh"] if fresh else []
    return given or [f"the {cores} core{'s' if cores != 1 else ''} of this machine"]
