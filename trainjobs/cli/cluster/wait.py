"""gtj wait: until a job on the cluster has ended, or one of its conditions holds.

Asks for the job every two seconds: its status changes every ten at most, and a watch would have to be opened again just as often. A
server that does not answer for a while is no reason to stop waiting for a job of three days; one that says no is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import click

from gentrain_operator.kube.errors import ApiError
from trainjobs.api.codes import CODES, FAILED, INTERRUPTED, OK
from trainjobs.api.errors import JobError
from trainjobs.api.fields import seconds
from trainjobs.cli.cluster.options import cluster_options, job_argument
from trainjobs.cli.cluster.refusal import passing
from trainjobs.cli.cluster.server import Cluster, connect
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.view import Object, condition, ending, failure_error, is_true, name_of, phase, progress_of, status_of, told
from trainjobs.cli.output import emit, format_option
from trainjobs.cli.screen import Screen, screen
from trainjobs.run.numbers import duration

POLL = 2.0
PATIENCE = 300.0  # seconds for which a server may not answer
REFUSALS = 30.0  # and may say no: one that is starting knows neither kinds nor roles yet
CONDITIONS = (
    *("Accepted", "QuotaReserved", "ResourcesReady", "Running", "CheckpointReady"),
    *("Suspended", "Complete", "Failed", "Finished"),
)


@click.command("wait", short_help="Wait until a job on the cluster has ended.")
@job_argument
@click.option(
    "--for",
    "wanted",
    metavar="CONDITION",
    type=click.Choice(CONDITIONS, case_sensitive=False),
    default="Finished",
    show_default=True,
    help=f"One of {', '.join(CONDITIONS)}.",
)
@click.option("--timeout", metavar="DURATION", help="Give up after 45s, 10m, 1h30m ...; default: never.")
@cluster_options
@format_option
def command(name: str, wanted: str, timeout: str | None, target: Target, form: str) -> int:
    """Wait until the job NAME has ended, or until a condition of it holds.

    Exit status 0 when it succeeded (or the condition holds), the failure's own when it failed (usually 5), 6 when the time is up, 7 when
    there is no such job or it is deleted meanwhile.
    """
    limit = period(timeout) if timeout is not None else None
    cluster = connect(target)
    return waited(cluster, cluster.job(name), wanted, limit, form)


def period(text: str, option: str = "--timeout") -> int:
    """Seconds of 45s, 5m or 1h30m."""
    if not re.fullmatch(r"(?=.)(\d+h)?(\d+m)?(\d+s)?", text):
        raise click.BadParameter(f'"{text}" is not a period such as 45s, 5m or 1h30m', param_hint=option)
    return seconds(text)


def waited(cluster: Cluster, job: Object, wanted: str, limit: float | None, form: str = "table") -> int:
    """Waits with a line of progress, says how it ended, and returns the exit status of that."""
    view, interrupted = screen(name_of(job)), False
    try:
        job = until(cluster, job, wanted, limit, view)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        view.close()
    if interrupted:
        click.echo(f"no longer waiting; the job goes on: {cluster.command('wait', name_of(job))}", err=True)
        return INTERRUPTED
    code = verdict(job, wanted)
    assert code is not None, "it waits until there is one"
    if form != "table":
        emit(outcome(job, wanted, code), form)
        return code
    failure = status_of(job).get("failure")
    if is_true(job, "Finished"):
        click.echo(ending(job))
        if failure and phase(job) == "Failed":
            from trainjobs.cli.diagnostics import plain

            click.echo(plain(failure_error(failure)), err=True)
            click.echo(f"  next:  {cluster.command('explain', name_of(job))}", err=True)
    else:
        click.echo(f"{name_of(job)}: {wanted}")
    return code


def until(
    cluster: Cluster,
    job: Object,
    wanted: str,
    limit: float | None,
    view: Screen,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] | None = None,
) -> Object:
    """The job once there is a verdict. GTJ0215 when `limit` seconds are over, GTJ0118 when it is gone, GTJ0302 when the server is."""
    began = heard = clock()
    pause = sleep or (lambda length: time.sleep(length))
    name, uid = name_of(job), job["metadata"]["uid"]
    silent = False
    while verdict(job, wanted) is None:
        now = clock()
        if limit is not None and now - began >= limit:
            raise late(cluster, job, wanted, limit)
        view.show(progress_of(job), now)
        pause(POLL if limit is None else max(0.01, min(POLL, limit - (now - began))))
        try:
            job, heard, silent = cluster.job(name), clock(), False
        except JobError as error:
            cause = error.__cause__
            if not isinstance(cause, ApiError) or error.code == "GTJ0118":
                raise
            patience = PATIENCE if passing(cause) else REFUSALS
            if clock() - heard > patience:
                raise
            if not silent:
                view.say(f"{error.what}: {error.why}; trying for {duration(patience)}")
            silent = True
            continue
        if job["metadata"]["uid"] != uid:
            why = "another job has its name now"
            raise JobError("GTJ0118", f"job {name} was deleted while it was waited for", where=cluster.where, why=why)
    return job


def verdict(job: Object, wanted: str) -> int | None:
    """The exit status when there is nothing left to wait for; None to go on waiting.

    Only what the operator said about this very spec counts: a job that was just resumed is still called Suspended.
    """
    status = status_of(job)
    current = status.get("observedGeneration", 0) >= job["metadata"].get("generation", 0)
    if wanted != "Finished" and current and is_true(job, wanted):
        return OK
    if not is_true(job, "Finished"):
        return None
    if is_true(job, "Failed"):
        if wanted == "Failed":
            return OK
        code = (status.get("failure") or {}).get("code")
        return CODES[code].exit_code if code in CODES else FAILED
    # What comes before success has been passed; what excludes it will never be.
    return FAILED if wanted in ("Failed", "Suspended") else OK


def late(cluster: Cluster, job: Object, wanted: str, limit: float) -> JobError:
    name, said = name_of(job), str(status_of(job).get("message") or "")
    now = told(found) if (found := condition(job, wanted)) else said
    what = f"{name} has not become {wanted} within {duration(limit)}: it is {phase(job)}"
    return JobError(
        "GTJ0215", what, where=cluster.where, why=now, how=f"the job goes on; why it is not further: {cluster.command('explain', name)}"
    )


def outcome(job: Object, wanted: str, code: int) -> dict[str, Any]:
    status = status_of(job)
    return {
        "name": name_of(job),
        "namespace": job["metadata"]["namespace"],
        "phase": phase(job),
        "for": wanted,
        "exitCode": code,
        "step": progress_of(job)["step"],
        "totalSteps": progress_of(job).get("totalSteps"),
        "failure": status.get("failure"),
    }
