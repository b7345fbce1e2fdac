"""gtj resume."""

from __future__ import annotations

import click

from trainjobs.cli.cluster.options import cluster_options, job_argument
from trainjobs.cli.cluster.suspension import turned
from trainjobs.cli.cluster.target import Target


@click.command("resume", short_help="Let a suspended job on the cluster go on.")
@job_argument
@click.option("-w", "--wait", is_flag=True, help="Until it has ended; the exit status is then the job's.")
@click.option("--timeout", metavar="DURATION", help="With --wait: give up after 45s, 10m, 1h30m ...")
@cluster_options
def command(name: str, wait: bool, timeout: str | None, target: Target) -> int:
    """Let the suspended job NAME go on from its newest checkpoint."""
    return turned(name, False, wait, timeout, target)
