"""What weights belong to: the job as a reader must know it, and versions; and where checkpoints are. No torch: `gtj run` asks for it."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from trainjobs.api.job import Job, Spec
from trainjobs.api.uris import file_uri

DISTRIBUTIONS = ("gentrain", "torch", "deepspeed", "ray", "transformers", "tokenizers", "numpy")


def essentials(spec: Spec) -> dict[str, Any]:
    """What a reader of weights must know of the job, as its manifest says it. Of a custom job no options: they may hold anything."""
    family = getattr(spec, spec.family).model_dump(mode="json", by_alias=True, exclude={"options"})
    return {spec.family: family, "images": spec.data.images.model_dump(mode="json", include={"size", "channels"})}


def store_uri(job: Job, run: Path) -> str:
    """The prefix of the job's checkpoints: below the manifest's URI by uid or name, else in the run folder."""
    if job.spec.checkpoints.uri is None:
        return file_uri(f"{run.resolve()}/checkpoints")
    return f"{job.spec.checkpoints.uri.rstrip('/')}/{job.metadata.uid or job.metadata.name}"


def versions() -> dict[str, str]:
    """Versions of what computes, as recorded in checkpoints and reports."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
