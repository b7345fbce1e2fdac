"""The run folder, before anything trains: writable, ours, not in use, and of the same job as before.

A folder may be continued when nothing that changes the maths differs: family, data, seed, global batch, precision, optimizers,
schedule, clipping, average and DeepSpeed's own settings. How it is computed (workers, micro-batch, ZeRO stage), how often it is saved and
evaluated, and everything a cluster needs may change. `training.steps` may change too, but not to less than what is done.
A folder without a checkpoint holds nothing to continue, so a mended manifest simply starts in it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import FAMILIES, Job, Spec
from trainjobs.checkpointer.identity import versions
from trainjobs.run.folder import Run, held
from trainjobs.run.progress import replace


def cores() -> int:
    """Cores this process may use: less than the machine's in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(job: Job, available: int) -> None:
    """GTJ0116 when the job asks for more workers than there are cores."""
    workers = job.spec.compute.worker_range[0]
    if workers > available:
        raise JobError(
            "GTJ0116",
            f"{workers} workers on {available} core{'s' if available > 1 else ''}",
            where="spec.compute.workers",
            why="each worker keeps a core busy; more of them only take turns",
            how=f"gtj run --workers {available}, or submit the job to a cluster",
        )


@contextlib.contextmanager
def reserved(path: Path) -> Iterator[Run]:
    """The folder, created when missing, held for this process until the end of the block. GTJ0114, GTJ0117."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"gentrain")
        finally:
            probe.unlink(missing_ok=True)
        descriptor = os.open(path / "gtj.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        mend = "free some space on its disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend its permissions"
        raise unwritable(path, error, f"choose another folder with --run-dir, or {mend}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise in_use(path) from None
        if held(path / "lock"):
            raise in_use(path)
        yield Run(path)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError, how: str) -> JobError:
    return JobError("GTJ0114", "the run folder cannot be written", where=str(path), why=error.strerror or str(error), how=how)


def in_use(path: Path) -> JobError:
    pid = Run(path).progress().get("pid")
    return JobError(
        "GTJ0117",
        "another process is training in this run folder",
        where=str(path),
        why=f"its process is {pid}" if pid else "its lock is held",
        how=f"watch it with: gtj status {path} -w; or train into another folder with --run-dir",
    )


def set_aside(path: Path) -> Path | None:
    """Moves an earlier run out of the way for --fresh: nothing that was trained is deleted. Returns where it went."""
    if not path.exists() or not any(path.iterdir()):
        return None
    number = 1
    while (earlier := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    with reserved(path):
        path.rename(earlier)
    return earlier


def prepare(run: Run, job: Job, source: bytes, now: float, changes: Mapping[str, Any] | None = None) -> int:
    """Writes the manifest, and what the command line changed in it, into a reserved folder, after asking whether it may be continued.
    Returns the step it stands at.

    GTJ0115 when the folder holds another job, GTJ0114 when the disk refuses.
    """
    step = check_same(run, job)
    try:
        (run.path / "logs").mkdir(exist_ok=True)
        for name in ("stop", "failure.json"):
            (run.path / name).unlink(missing_ok=True)
        temporary = run.path / ".job.yaml.new"
        temporary.write_bytes(source)
        temporary.replace(run.path / "job.yaml")
        replace(run.path / "changes.json", json.dumps(changes or {}, indent=2) + "\n")
        replace(run.path / "versions.json", json.dumps(versions(), indent=2) + "\n")
        replace(run.path / "job.json", json.dumps(job.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2) + "\n")
        # Whatever the last attempt ended as, it is not how this one ended.
        progress = {"startedAt": now, **run.progress(), "phase": "Preparing", "message": "starting the trainer"}
        replace(run.path / "progress.json", json.dumps({**progress, "totalSteps": job.spec.training.steps, "metrics": {}}) + "\n")
    except OSError as error:
        raise unwritable(run.path, error, "free some space on its disk, or choose another folder with --run-dir") from None
    return step


def check_same(run: Run, job: Job) -> int:
    """The step an earlier run of the same job stands at, 0 without one. GTJ0115 when it was another job."""
    if not run.exists:
        return 0
    fresh = "choose another folder with --run-dir, another metadata.name, or --fresh to start again (the earlier run is kept beside it)"
    try:
        earlier = Job.model_validate(run.job())
    except ValueError:
        raise JobError(
            "GTJ0115", "the run folder belongs to a manifest that this version cannot read", where=str(run.path), how=fresh
        ) from None
    old, new = maths(earlier.spec), maths(job.spec)
    different = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if different and not saved(run):
        clear(run)
        return 0
    if different:
        shown = "; ".join(f"{name} was {json.dumps(old.get(name))}, is {json.dumps(new.get(name))}" for name in different[:3])
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise JobError("GTJ0115", "the run folder belongs to another manifest", where=str(run.path), why=shown + more, how=fresh)
    checkpoint = run.progress().get("checkpoint") or {}
    step = checkpoint.get("step", 0) if isinstance(checkpoint.get("step", 0), int) else 0
    if job.spec.training.steps < step:
        raise JobError(
            "GTJ0115",
            f"the run is at step {step} and the manifest asks for {job.spec.training.steps}",
            where="spec.training.steps",
            why="a run cannot be taken back",
            how=f"ask for {step} or more, or {fresh}",
        )
    return int(step)


def saved(run: Run) -> bool:
    """Whether the run has committed a checkpoint, by its own account."""
    return bool(run.progress().get("checkpoint")) or any(row.get("event") == "checkpoint" for row in run.attempts())


def clear(run: Run) -> None:
    """Removes the curves and pictures of an attempt that saved nothing: they are not those of the job that starts now."""
    for name in ("metrics.jsonl", "attempts.jsonl", "progress.json", "report.html"):
        (run.path / name).unlink(missing_ok=True)
    for name in ("samples", "events"):
        shutil.rmtree(run.path / name, ignore_errors=True)


def maths(spec: Spec) -> dict[str, Any]:
    """What must not change between attempts, flattened: {"training.seed": 0, ...}."""
    dumped = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    kept = {name: dumped[name] for name in (*FAMILIES, "data", "training") if name in dumped}
    kept["deepspeed"] = {"config": dumped.get("deepspeed", {}).get("config", {})}
    flat = dict(flatten(kept))
    for name in ("training.steps", "training.batch.micro", "data.cache", "data.workers"):
        flat.pop(name, None)
    return flat


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from flatten(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
