"""gtj explain: why a job does what it does; or what an error code means."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import click

from trainjobs.api.codes import CODES, page
from trainjobs.api.errors import sentences
from trainjobs.api.problem import did_you_mean
from trainjobs.cli.cluster.options import cluster_options, complete_jobs
from trainjobs.cli.cluster.reasons import Explanation, Seen, described, explanation
from trainjobs.cli.cluster.server import Cluster, connect
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.view import is_true, name_of, phase, status_of
from trainjobs.cli.explained import explained
from trainjobs.cli.output import coloured, columns, emit, folded, format_option, painted, record

PODS_LOOKED_INTO = 3
PODS_SHOWN = 8


def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    codes = [code for code in CODES if incomplete and code.startswith(incomplete.upper())]
    return codes or complete_jobs(context, parameter, incomplete)


@click.command("explain", short_help="Say why a job does not run, or what an error code means.")
@click.argument("name", metavar="NAME|CODE", shell_complete=complete)
@cluster_options
@format_option
def command(name: str, target: Target, form: str) -> int:
    """Say in plain words why the job NAME is where it is, what supports that, and which command comes next.

    Looks at the job's conditions, pods, events, compute profile and queue. Given the URI of a run's checkpoints instead, at the record that
    the run kept there, whatever has become of its cluster.

    With an error code such as GTJ0117: what it means and what to do about it. That needs no cluster.
    """
    if re.fullmatch(r"GTJ\d*", name, re.IGNORECASE):
        return code_page(name.upper(), form)
    if "://" in name:
        return of_record(name, form)
    cluster = connect(target)
    job = cluster.job(name)
    seen = look(cluster, job, time.time())
    found = explanation(seen)
    if missed := (status_of(job).get("plan") or {}).get("missed"):
        found = replace(found, why=(*found.why, f"planned: {missed}"))
    if form == "table":
        click.echo("\n".join(text(name_of(job), phase(job), found, columns())))
    else:
        emit({"name": name, "namespace": cluster.namespace, "phase": phase(job), **asdict(found), "pods": pods_data(found)}, form)
    return 0


def of_record(uri: str, form: str) -> int:
    """The same of a run whose record alone is left."""
    run = record(uri, ())
    found = explained(run, time.time())
    if form == "table":
        click.echo("\n".join(text(run.name, run.phase(), found, columns())))
    else:
        emit({"name": run.name, "uri": run.place, "phase": run.phase(), **asdict(found), "pods": []}, form)
    return 0


def code_page(code: str, form: str) -> int:
    if code not in CODES:
        raise click.BadParameter(
            sentences(f"there is no code {code}", did_you_mean(code, CODES) or "docs/errors/README.md lists all"), param_hint="NAME|CODE"
        )
    if form != "table":
        emit({"code": code, "title": CODES[code].title, "exitCode": CODES[code].exit_code, "docs": CODES[code].docs}, form)
        return 0
    for line in page(code).removeprefix("# ").strip().splitlines():
        head = "- " if line.startswith("- ") else ""
        for part in folded(head, line.removeprefix("- "), columns()):
            click.echo(part)
    return 0


def look(cluster: Cluster, job: dict[str, Any], now: float) -> Seen:
    """Reads what the explanation may need, and no more: of a job that is over, nothing but itself."""
    if is_true(job, "Finished"):
        return Seen(job, now, cluster.command)
    if status_of(job).get("observedGeneration") is None:
        return Seen(job, now, cluster.command, pods=cluster.visible_pods(job), events=cluster.events(job["metadata"]["uid"]))
    name = (status_of(job).get("ray") or {}).get("rayJob")
    rayjob, pods = cluster.rayjob(name) if name else None, cluster.visible_pods(job)
    waiting = [pod for pod in pods if described(pod)[1] != "Running"][:PODS_LOOKED_INTO]
    about = [job, *([rayjob] if rayjob else []), *waiting]
    events = [event for one in about for event in cluster.events(one["metadata"]["uid"])]
    compute = job["spec"].get("compute", {})
    queue = compute.get("queue")
    kueue = cluster.kueue(queue, rayjob["metadata"]["uid"] if rayjob else "") if queue and not is_true(job, "QuotaReserved") else None
    profiles = cluster.profiles() if compute.get("profiles") and not is_true(job, "Accepted") else None
    return Seen(job, now, cluster.command, rayjob, pods, events, profiles, kueue)


def text(name: str, now: str, found: Explanation, width: int) -> Iterator[str]:
    """`now` is the phase."""
    code = f" ({found.code})" if found.code else ""
    first, *rest = folded("", f"{name} is {now}: {found.what}{code}", width)
    yield first.replace(f" {now}:", f" {coloured(now)}:", 1)
    yield from rest
    for label, lines in (("why", found.why), ("do", found.do)):
        for number, line in enumerate(lines):
            yield from folded(f"  {label if number == 0 else '':<6}", line, width)
    if found.pods:
        longest = max(len(name) for name, _, _ in found.pods[:PODS_SHOWN])
        for number, (name, state, node) in enumerate(found.pods[:PODS_SHOWN]):
            yield f"  {'pods' if number == 0 else '':<6}{name:<{longest}}  {state}" + (f" on {node}" if node != "-" else "")
        if len(found.pods) > PODS_SHOWN:
            yield f"        and {len(found.pods) - PODS_SHOWN} more"
    for number, line in enumerate(found.next):
        # Commands stay on one line, to be copied.
        yield f"  {'next' if number == 0 else '':<6}{painted(line, bold=True)}"


def pods_data(found: Explanation) -> list[dict[str, str]]:
    return [{"name": name, "state": state, "node": node} for name, state, node in found.pods]
