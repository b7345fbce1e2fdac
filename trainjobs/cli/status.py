"""gtj status: one run, in full."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from trainjobs.api.errors import CODES, JobError
from trainjobs.cli.cluster.options import complete_either, place_options
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.diagnostics import plain
from trainjobs.cli.line import activity, eta, memory, position, throughput
from trainjobs.cli.output import CLUSTER, coloured, emit, entry, find, format_option, painted
from trainjobs.cli.screen import screen
from trainjobs.report.planned import lines
from trainjobs.run.folder import INTERRUPTED, LIVE, Run
from trainjobs.run.numbers import duration, instant, short

POLL = 0.5
EVENTS = 6


@click.command("status", short_help="Show one run: phase, progress, checkpoint, what happened.")
@click.argument("name", shell_complete=complete_either)
@click.option("-w", "--watch", is_flag=True, help="Follow it until it ends.")
@place_options
@format_option
def command(name: str, watch: bool, target: Target | None, form: str) -> None:
    """Show the run NAME (under ./gentrain-runs, a folder, or the URI of its checkpoints): phase, progress, events, failure.

    With -n, --context or --cluster, the job NAME on the cluster.
    """
    if target is not None:
        from trainjobs.cli.cluster import overview

        overview.status(target, name, watch, form)
        return
    if watch and "://" in name:
        raise click.BadParameter("a record is read once; follow the job with -n NAMESPACE, or ask again", param_hint="--watch")
    run = find(name, elsewhere=CLUSTER)
    if watch and form == "table":
        follow(run)
    if form == "table":
        click.echo("\n".join(described(run, time.time())))
    else:
        emit(status(run), form)


def follow(run: Run) -> None:
    """The live line of a run that somebody else started, until it ends. Ctrl-C only ends the watching."""
    view = screen(run.path.name)
    try:
        while run.phase() in LIVE:
            view.show(run.progress(), time.time())
            time.sleep(POLL)
    except KeyboardInterrupt:
        pass
    finally:
        view.close()


def status(run: Run) -> dict[str, Any]:
    """progress.json, with the phase as it is now, the failure and the last events."""
    return {
        "name": run.path.name,
        "folder": run.place,
        "family": run.family(),
        **run.progress(),
        "phase": run.phase(),
        "failure": run.failure(),
        "events": newest(run),
        "planned": [asdict(line) for line in lines(run)],
    }


def described(run: Run, now: float) -> Iterator[str]:
    progress, phase = run.progress(), run.phase()
    yield f"{painted(run.path.name, bold=True)}  {run.family()}  {coloured(phase)}"
    if phase in LIVE and (doing := activity(progress) or progress.get("message")):
        yield entry("doing", str(doing))
    if progress.get("totalSteps"):
        yield entry("progress", "  ".join(part for part in (position(progress), eta(progress) if phase in LIVE else "") if part))
    metrics = progress.get("metrics") or {}
    if metrics:
        yield entry("metrics", "  ".join(f"{key} {short(value)}" for key, value in sorted(metrics.items())))
    speed = "  ".join(part for part in (throughput(progress), memory(progress)) if part)
    if speed:
        yield entry("speed", speed)
    if progress.get("workers"):
        yield entry("machine", f"{progress['workers']} worker(s) on {progress.get('device', '?')}, ZeRO stage {progress.get('stage', '?')}")
    for line in lines(run):
        yield entry("planned", painted(str(line), "yellow" if line.missed else None))
    if progress.get("attempt"):
        yield entry("attempt", f"{progress['attempt']}, restarted {progress.get('restarts', 0)} times")
    checkpoint = progress.get("checkpoint") or {}
    if checkpoint:
        saved = instant(checkpoint.get("committedAt"))
        yield entry("checkpoint", f"step {checkpoint.get('step')}" + (f", {duration(now - saved)} ago" if saved else ""))
    if progress.get("checkpointFailure") and phase in LIVE:
        yield entry("not saved", painted(str(progress["checkpointFailure"]), "yellow"))
    if progress.get("warning"):
        yield entry("warning", painted(str(progress["warning"]), "yellow"))
    yield entry("folder", run.place)
    failure = run.failure() if phase == "Failed" else None
    events = newest(run)
    if events:
        yield "events"
    width = max((len(at_step(event)) for event in events), default=0)
    for event in events:
        at = instant(event.get("time"))
        ago = f"{duration(now - at)} ago" if at else ""
        # Why it failed is said in full below, once.
        message = "" if failure and event is events[-1] and event.get("event") == "failed" else event.get("message") or ""
        yield f"  {ago:>10}  {event.get('event', '?'):<11} {at_step(event):<{width}}  {message}".rstrip()
    if failure:
        yield (painted(plain(JobError.from_dict({"what": "", **failure})), "red") if failure["code"] in CODES else str(failure["code"]))
    if phase == INTERRUPTED:
        yield entry("next", "nobody is training it; the same `gtj run` goes on from its newest checkpoint")


def at_step(event: Mapping[str, Any]) -> str:
    """ "step 20"; nothing for what happened before there was a step."""
    return "" if event.get("step") is None else f"step {event['step']}"


def newest(run: Run) -> list[dict[str, Any]]:
    """The last events, and before them the last warnings: they stay in sight, however many checkpoints came after them."""
    events = run.attempts()
    return [*[event for event in events[:-EVENTS] if event.get("event") == "warning"][-EVENTS:], *events[-EVENTS:]]
