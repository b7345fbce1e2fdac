"""gtj ls: the runs under ./gentrain-runs."""

from __future__ import annotations

import time
from typing import Any

import click

from trainjobs.cli.cluster.options import place_options
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.line import age, losses, position
from trainjobs.cli.output import coloured, emit, format_option, reading, record, runs, table
from trainjobs.run.folder import Run
from trainjobs.run.numbers import instant


@click.command("ls", short_help="List the runs here, or the jobs on the cluster.")
@click.argument("uri", required=False)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="The cluster's jobs, of all namespaces.")
@place_options
@format_option
def command(uri: str | None, everywhere: bool, target: Target | None, form: str) -> None:
    """List the runs under ./gentrain-runs, or with -n, -A, --context or --cluster the jobs on the cluster: phase, progress, loss.

    URI: a place that jobs name in checkpoints.uri; the runs that keep a record there, whatever has become of their cluster.
    """
    if uri is not None:
        if everywhere or target is not None or "://" not in uri:
            raise click.UsageError("URI is a place of checkpoints, such as s3://bucket/runs, and stands alone")
        found = [record(f"{uri.rstrip('/')}/{name}", ()) for name in recorded(uri)]
        show(found, form, f"no run keeps a record in {uri}")
        return
    if everywhere or target is not None:
        from trainjobs.cli.cluster.overview import listing

        listing(target or Target(), everywhere, form)
        return
    show(runs(), form, "no runs under ./gentrain-runs; start one with: gtj run -f job.yaml (jobs on the cluster: gtj ls --cluster)")


def recorded(uri: str) -> list[str]:
    from trainjobs.run import recorded

    with reading(uri) as store:
        return recorded.runs(store)


def show(found: list[Run], form: str, none: str) -> None:
    if form != "table":
        emit([row(run) for run in found], form)
    elif not found:
        click.echo(none, err=True)
    else:
        now = time.time()
        click.echo(table(("NAME", "FAMILY", "PHASE", "PROGRESS", "LOSS", "AGE"), [cells(run, now) for run in found]))


def cells(run: Run, now: float) -> tuple[str, ...]:
    progress = run.progress()
    where = position(progress) if progress.get("totalSteps") else "-"
    loss = losses(progress).removeprefix("loss ") or "-"
    return run.path.name, run.family(), coloured(run.phase()), where, loss, age(progress, now)


def row(run: Run) -> dict[str, Any]:
    progress = run.progress()
    return {
        "name": run.path.name,
        "family": run.family(),
        "phase": run.phase(),
        "step": progress.get("step", 0),
        "totalSteps": progress.get("totalSteps"),
        "metrics": progress.get("metrics", {}),
        "startedAt": instant(progress.get("startedAt")),
        "folder": run.place,
    }
