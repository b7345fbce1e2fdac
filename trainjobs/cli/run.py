"""gtj run: trains a manifest on this machine.

This process stays light: it checks, prepares the run folder, starts the driver and follows its progress.json.
torch and Ray live in the driver.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.api.metrics import WAIT
from trainjobs.api.shape import dotted
from trainjobs.cli import driver
from trainjobs.cli.changes import noted, options
from trainjobs.cli.diagnostics import plain, rendered
from trainjobs.cli.follow import Outcome, follow
from trainjobs.cli.foreseen import annotated
from trainjobs.cli.manifest import Manifest, load_job
from trainjobs.cli.output import RUNS, coloured, emit, painted
from trainjobs.cli.prepare import check_workers, cores, prepare, reserved, set_aside
from trainjobs.cli.screen import screen
from trainjobs.head.recording import recorded
from trainjobs.monitor.trackers import tracker
from trainjobs.run.folder import Run
from trainjobs.run.numbers import duration, number, short

# What a manifest may say and this command does not act upon: a cluster does.
IGNORED = (
    "spec.compute.profiles",
    "spec.compute.queue",
    "spec.pod",
    "spec.budget",
    "spec.suspend",
    "spec.preflight",
    "spec.activeDeadlineSeconds",
    "spec.ttlSecondsAfterFinished",
)


@click.command("run", short_help="Train here, on this machine.")
@click.option("-f", "--file", "source", required=True, metavar="FILE", help='Manifest; "-" reads standard input.')
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: the manifest's.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps to train in all; default: the manifest's.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Change a field: --set training.seed=1. May be repeated.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Run folder; default: ./gentrain-runs/<name>.")
@click.option("--no-ray", is_flag=True, help="One worker in one process, without Ray: for debuggers and profilers.")
@click.option("--fresh", is_flag=True, help="Start again; an earlier run is kept beside it.")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="How to print the outcome.")
def command(
    source: str,
    workers: int | None,
    steps: int | None,
    sets: tuple[str, ...],
    run_dir: Path | None,
    no_ray: bool,
    fresh: bool,
    form: str,
) -> int:
    """Train a manifest here. The same command goes on where an interrupted run stopped."""
    changes = [*sets, *([f"training.steps={steps}"] if steps else [])]
    manifest = load_job(source, changes, workers or (1 if no_ray else None), here=True)
    assert manifest.job is not None, "load_job raises for a manifest with problems"
    job, ignored = annotated(local(manifest.job, workers, no_ray, fresh, cores())), ignored_fields(manifest.job)
    check_workers(job, cores())
    if job.spec.training.tracking is not None:
        tracker(job.spec.training.tracking.tracker)
    folder = run_dir or RUNS / job.metadata.name
    again = resume_command(folder / "job.yaml", workers, steps, settled(sets, manifest), run_dir, no_ray)
    if source != "-":
        again = resume_command(Path(source), workers, steps, sets, run_dir, no_ray)
    for path, uri in manifest.resolved:
        click.echo(painted(f"{dotted(path)} is {uri}", dim=True), err=True)
    if manifest.notes:
        click.echo(rendered(manifest.notes), err=True)
    if ignored:
        click.echo(painted(f"ignored here: {ignored}", dim=True), err=True)
    earlier = set_aside(folder) if fresh else None
    if earlier:
        click.echo(painted(f"the earlier run is in {earlier}", dim=True), err=True)
    with reserved(folder) as run:
        made = noted(manifest.changes, steps, manifest.job, job, options(workers, no_ray, fresh, cores()))
        step = prepare(run, job, manifest.text, time.time(), made)
        by = f"{str(job.spec.compute.workers).replace('-', ' to ')} worker{'s' if job.spec.compute.workers != 1 else ''}"
        started = f"continuing {folder} from step {step}, {by}" if step else f"training in {folder}, {by}"
        click.echo(painted(started, dim=True), err=True)
        begun = time.time()
        with recorded(job, run.path, lambda words: click.echo(words, err=True), apart=True):
            view = screen(job.metadata.name)
            try:
                with driver.Signals() as signals:
                    result = follow(run, lambda: driver.Process(run, driver.command(folder, not no_ray)), view, driver.Wall(), signals)
            finally:
                view.close()
        report = written_report(run)  # with what there is to say of the record
    if form == "json":
        emit(as_data(run, result, report), "json")
    elif result.error is not None:
        click.echo("\n".join(failed(run, result.error, report)), err=True)
    else:
        click.echo("\n".join(summary(run, result, report, time.time() - begun)))
        if result.phase != "Succeeded":
            click.echo(f"  resume with: {again}")
    return result.exit_code


def local(job: Job, workers: int | None, no_ray: bool, fresh: bool, available: int) -> Job:
    """The job as it runs here: an elastic group no larger than `available` cores, and no earlier checkpoint when it is to start again."""
    low, high = (1, 1) if no_ray and workers is None else (workers, workers) if workers else job.spec.compute.worker_range
    if no_ray and low > 1:
        raise click.UsageError("--no-ray trains in one process: leave out --workers, or --no-ray")
    each = 1 if no_ray else job.spec.compute.each
    high = max((size for size in job.spec.training.batch.sizes(low, high, each) if size <= available), default=low)
    gpus = min(1, job.spec.compute.gpus_per_worker) if no_ray else job.spec.compute.gpus_per_worker
    compute = job.spec.compute.model_copy(update={"workers": low if low == high else f"{low}-{high}", "gpus_per_worker": gpus})
    checkpoints = job.spec.checkpoints
    if fresh and checkpoints.uri is not None:
        # The folder is set aside, a store elsewhere is not: what it holds must not be resumed from.
        checkpoints = checkpoints.model_copy(update={"resume_from": "none"})
    spec = job.spec.model_copy(update={"compute": compute, "checkpoints": checkpoints})
    return job.model_copy(update={"spec": spec})


def ignored_fields(job: Job) -> str:
    """Fields that the manifest sets and this command does not act upon: "spec.pod, spec.budget (used on a cluster)"."""
    found = [path for path in IGNORED if is_set(job, path.split("."))]
    return f"{', '.join(found)} (used on a cluster)" if found else ""


def is_set(model: BaseModel, path: list[str]) -> bool:
    names = {info.alias or name: name for name, info in type(model).model_fields.items()}
    name = names[path[0]]
    if name not in model.model_fields_set:
        return False
    value = getattr(model, name)
    if len(path) > 1:
        return isinstance(value, BaseModel) and is_set(value, path[1:])
    return bool(value)


def settled(sets: tuple[str, ...], manifest: Manifest) -> tuple[str, ...]:
    """The changes with the relative paths in them as they were resolved, for the copy of the manifest, which lies elsewhere."""
    changed = [change.path for change in manifest.changes]
    moved = [(path, uri) for path, uri in manifest.resolved if any(path[: len(one)] == one for one in changed)]
    return (*sets, *(f"{dotted(path)}={uri}" for path, uri in moved))


def resume_command(source: Path, workers: int | None, steps: int | None, sets: tuple[str, ...], run_dir: Path | None, no_ray: bool) -> str:
    """The command that goes on with this run. Without --fresh: that would start again."""
    words = ["gtj", "run", "-f", str(source)]
    words += ["--workers", str(workers)] if workers else []
    words += ["--steps", str(steps)] if steps else []
    words += [word for change in sets for word in ("--set", change)]
    words += ["--run-dir", str(run_dir)] if run_dir else []
    words += ["--no-ray"] if no_ray else []
    return shlex.join(words)


def written_report(run: Run) -> Path | None:
    """report.html; None, and a line on stderr, when it cannot be written: the training is not worth less for that."""
    try:
        from trainjobs.report.page import write_report

        return write_report(run.path)
    except (ImportError, OSError) as error:
        click.echo(f"no report: {error}", err=True)
        return None


def summary(run: Run, result: Outcome, report: Path | None, seconds: float) -> Iterator[str]:
    progress = run.progress()
    steps, samples = progress.get("step", 0), progress.get("samples", 0)
    yield f"{coloured(result.phase)}  {run.name}: step {steps}/{progress.get('totalSteps', '?')}, {samples} samples, {duration(seconds)}"
    metrics = final_metrics(run)
    width = max(map(len, [*metrics, "checkpoints"]))
    for name, value in sorted(metrics.items()):
        yield f"  {name:<{width}}  {short(value)}"
    checkpoint = progress.get("checkpoint") or {}
    elsewhere = isinstance(run.spec().get("checkpoints", {}).get("uri"), str)
    store = run.checkpoints_uri() if elsewhere else run.path / "checkpoints"
    places = {
        "samples": newest_sample(run),
        "report": report,
        "checkpoints": f"{store} (newest: step {checkpoint['step']})" if checkpoint.get("step") else None,
        "events": run.path / "events" if (run.path / "events").is_dir() else None,
    }
    for name, place in places.items():
        if place:
            yield f"  {name:<{width}}  {place}"


def failed(run: Run, error: JobError, report: Path | None) -> Iterator[str]:
    """The error, and where to read more."""
    yield plain(error)
    yield f"  log:   {run.driver_log}"
    rank = (run.failure() or {}).get("rank") or 0
    log = run.path / "logs" / f"worker-{rank}.log"
    if log.exists():
        yield f"         {log}"
    if report:
        yield f"  page:  {report}"


def final_metrics(run: Run) -> dict[str, float]:
    """The last value of each metric, leaving out learning rates and what is measured by a clock."""
    last: dict[str, Any] = {}
    for row in run.metrics():
        last |= row
    skipped = ("step", "samples", "time", "throughput", WAIT)
    return {
        name: value
        for name, raw in last.items()
        if name not in skipped and not name.startswith("lr/") and (value := number(raw)) is not None
    }


def newest_sample(run: Run) -> Path | None:
    folder = run.path / "samples"
    return max(folder.glob("step-*"), default=None) if folder.is_dir() else None


def as_data(run: Run, result: Outcome, report: Path | None) -> dict[str, Any]:
    progress, sample = run.progress(), newest_sample(run)
    return {
        "name": run.name,
        "folder": str(run.path),
        "phase": result.phase,
        "exitCode": result.exit_code,
        "step": progress.get("step", 0),
        "totalSteps": progress.get("totalSteps"),
        "samples": progress.get("samples", 0),
        "metrics": {name: value if value - value == 0 else str(value) for name, value in final_metrics(run).items()},
        "restarts": result.restarts,
        "checkpoint": progress.get("checkpoint"),
        "sample": str(sample) if sample else None,
        "report": str(report) if report else None,
        "failure": result.error.to_dict() if result.error else None,
    }
