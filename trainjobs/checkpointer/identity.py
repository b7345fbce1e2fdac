"""What weights belong to: the job as a reader must know it, and versions; and where checkpoints are. No torch: `gtj run` asks for it."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from trainjobs.api.job import Job, Spec
from trainjobs.api.uris import file_uri

PACKAGE = Path(__file__).parents[1]
DISTRIBUTIONS = ("gentrain", "torch", "deepspeed", "ray", "transformers", "diffusers", "peft", "tokenizers", "numpy")


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
    """Versions of what computes, as recorded in checkpoints and reports; `code` is a digest of this package's own modules, because between
    two releases the version says nothing of them."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "code": _code()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def custom_code(spec: Spec) -> str:
    """A digest of the module of a custom objective; "" where there is none, or it cannot be found."""
    if spec.custom is None:
        return ""
    try:
        found = importlib.util.find_spec(spec.custom.objective.partition(":")[0])
        return hashlib.sha256(Path(str(found and found.origin)).read_bytes()).hexdigest()[:12]
    except (ImportError, ValueError, OSError):
        return ""


@cache
def _code() -> str:
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]
