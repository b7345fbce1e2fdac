"""What gtj stop and gtj resume share: turning spec.suspend, which the operator follows."""

from __future__ import annotations

import click

from trainjobs.api.errors import JobError
from trainjobs.cli.cluster.server import connect
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.view import is_true, phase, status_of
from trainjobs.cli.cluster.wait import period, waited


def turned(name: str, suspend: bool, wait: bool, timeout: str | None, target: Target) -> int:
    """The exit status. Turning it twice changes nothing; a job that has ended has nothing to stop (0) and cannot go on (GTJ0120)."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    limit = period(timeout) if timeout is not None else None
    cluster = connect(target)
    job = cluster.job(name)
    if is_true(job, "Finished"):
        if suspend:
            click.echo(f"{name} has ended ({phase(job)}): nothing to stop")
            return 0
        saved = (status_of(job).get("checkpoint") or {}).get("uri")
        from_there = f" with checkpoints.resumeFrom: {saved}" if saved else ""
        how = f"submit it under another metadata.name{from_there}"
        raise JobError("GTJ0120", f"job {name} has ended ({phase(job)})", where=cluster.where, how=how)
    if bool(job["spec"].get("suspend")) == suspend:
        click.echo(f"{name} is {'stopped already' if suspend else 'not stopped: nothing to resume'}")
    else:
        job = cluster.change(job, {"spec": {"suspend": suspend}})
        click.echo(f"{name} {'stops; its checkpoints stay' if suspend else 'goes on'}")
    if wait:
        return waited(cluster, job, "Suspended" if suspend else "Finished", limit)
    follow = ("go on", "resume", ()) if suspend else ("watch", "status", ("-w",))
    click.echo(f"  {follow[0] + ':':<7}{cluster.command(follow[1], name, *follow[2])}")
    return 0
