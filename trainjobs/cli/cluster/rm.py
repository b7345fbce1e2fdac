"""gtj rm: deletes jobs from the cluster, never what they trained."""

from __future__ import annotations

import sys

import click

from trainjobs.api.errors import sentences
from trainjobs.cli.cluster.options import cluster_options, complete_jobs
from trainjobs.cli.cluster.server import connect
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.view import is_true, phase


@click.command("rm", short_help="Delete jobs from the cluster; their checkpoints stay.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_jobs)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before deleting a job that has not ended.")
@cluster_options
def command(names: tuple[str, ...], yes: bool, target: Target) -> int:
    """Delete the jobs NAME... with their pods. Checkpoints stay where they are.

    A job that has not ended is asked about first; without a terminal to ask on, --yes is needed.
    """
    cluster = connect(target)
    # All are looked up before any is deleted: a misspelt name among them stops the whole command.
    jobs = [cluster.job(name) for name in dict.fromkeys(names)]
    live = [job for job in jobs if not is_true(job, "Finished") and not job["metadata"].get("deletionTimestamp")]
    if live and not yes:
        said = ", ".join(f"{job['metadata']['name']} ({phase(job)})" for job in live)
        if not sys.stdin.isatty():
            raise click.UsageError(f"not ended yet: {said}; add --yes to delete all the same, or gtj stop keeps the job")
        click.confirm(sentences(f"Not ended yet: {said}", f"Delete in namespace {cluster.namespace}?"), abort=True)
    for job in jobs:
        cluster.delete(job)
        click.echo(f"deleted {job['metadata']['name']} from namespace {cluster.namespace}; checkpoints stay")
    return 0
