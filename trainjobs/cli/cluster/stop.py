"""gtj stop."""

from __future__ import annotations

import click

from trainjobs.cli.cluster.options import cluster_options, job_argument
from trainjobs.cli.cluster.suspension import turned
from trainjobs.cli.cluster.target import Target


@click.command("stop", short_help="Suspend a job on the cluster: its machines are released, its checkpoints stay.")
@job_argument
@click.option("-w", "--wait", is_flag=True, help="Until its machines are released.")
@click.option("--timeout", metavar="DURATION", help="With --wait: give up after 45s, 10m, 1h30m ...")
@cluster_options
def command(name: str, wait: bool, timeout: str | None, target: Target) -> int:
    """Suspend the job NAME: its machines are released, its checkpoints stay, `gtj resume` goes on from the newest one."""
    return turned(name, True, wait, timeout, target)
