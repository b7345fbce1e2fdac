"""gtj ls and gtj status of a cluster."""

from __future__ import annotations

import time

import click

from trainjobs.cli.cluster.server import Cluster, connect
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.view import HEADER, Object, as_data, cells, described, is_true, row
from trainjobs.cli.cluster.wait import until
from trainjobs.cli.output import columns, emit, entry, table
from trainjobs.cli.screen import screen


def listing(target: Target, everywhere: bool, form: str) -> None:
    """The jobs of a namespace, or of all."""
    cluster = connect(target)
    jobs = cluster.jobs(everywhere)
    if form != "table":
        emit([row(job) for job in jobs], form)
    elif not jobs:
        where = "any namespace" if everywhere else f"namespace {cluster.namespace}"
        click.echo(f"no jobs in {where} ({cluster.where}); start one with: gtj submit -f job.yaml", err=True)
    else:
        now = time.time()
        rows = [(*((job["metadata"]["namespace"],) if everywhere else ()), *cells(job, now)) for job in jobs]
        click.echo(table((*(("NAMESPACE",) if everywhere else ()), *HEADER), rows))


def status(target: Target, name: str, watch: bool, form: str) -> None:
    """One job in full; with `watch`, first the live line until it has ended."""
    cluster = connect(target)
    job: Object = cluster.job(name)
    if watch and form == "table" and not is_true(job, "Finished"):
        job = watched(cluster, job)
    events = cluster.events(job["metadata"]["uid"])
    if form != "table":
        emit({**as_data(job, events), "context": cluster.where}, form)
        return
    click.echo("\n".join(described(job, events, time.time(), columns())))
    click.echo(entry("where", f"namespace {cluster.namespace}, {cluster.where}"))


def watched(cluster: Cluster, job: Object) -> Object:
    """The job once it has ended, or as it is when Ctrl-C ends the watching."""
    view = screen(str(job["metadata"]["name"]))
    try:
        return until(cluster, job, "Finished", None, view)
    except KeyboardInterrupt:
        return cluster.job(str(job["metadata"]["name"]))
    finally:
        view.close()
