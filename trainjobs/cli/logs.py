"""gtj logs: what the driver and the workers wrote."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from trainjobs.api.errors import JobError
from trainjobs.api.fields import seconds
from trainjobs.api.problem import listed
from trainjobs.cli.cluster.options import complete_either, place_options
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.output import CLUSTER, find
from trainjobs.run.folder import LIVE, Run

POLL = 0.5

# Python's logging and Ray's write local time: 2026-08-30 12:00:05,123 or 2026-08-30T12:00:05Z.
STAMP = re.compile(r"\[?(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True)
class Keep:
    """Which lines to print: written at or after `since` (Unix time), and matching `pattern`."""

    since: float | None = None
    pattern: re.Pattern[str] | None = None


@click.command("logs", short_help="Print a run's logs.")
@click.argument("name", shell_complete=complete_either)
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run ends.")
@click.option("--rank", type=int, help="Only this worker's log.")
@click.option("--since", help="Only lines of the last 45s, 5m, 1h30m ...; lines without a time belong to the one before.")
@click.option("--grep", "pattern", help="Only lines that match this regular expression.")
@place_options
def command(name: str, follow: bool, rank: int | None, since: str | None, pattern: str | None, target: Target | None) -> None:
    """Print the logs of the run NAME (or of the URI of its checkpoints): the driver's and every worker's, or one rank's.

    With -n, --context or --cluster, those of the job NAME on the cluster.
    """
    keep = Keep(time.time() - period(since) if since else None, expression(pattern))
    if target is not None:
        from trainjobs.cli.cluster.logs import Wanted, logs

        logs(target, name, follow, Wanted(keep.since, rank, keep.pattern))
        return
    if follow and "://" in name:
        raise click.BadParameter("a record is read once; follow the job with -n NAMESPACE, or ask again", param_hint="--follow")
    run = find(name, elsewhere=CLUSTER, parts=("logs",))
    files = chosen(run, rank)
    several, said = rank is None and (len(files) > 1 or follow), False
    for file, line in tail(files, keep, run, time.sleep) if follow else existing(files, keep):
        click.echo(f"{label(file)} | {line}" if several else line)
        said = True
    if not said:
        click.echo(silence(files, keep), err=True)


def chosen(run: Run, rank: int | None) -> list[Path]:
    """The log files to print, the driver's first. GTJ0118 for a rank that wrote none."""
    workers = sorted((run.path / "logs").glob("worker-*.log"), key=lambda path: (len(path.name), path.name))
    if rank is None:
        return [run.driver_log, *workers]
    wanted = run.path / "logs" / f"worker-{rank}.log"
    if wanted not in workers:
        ranks = ", ".join(path.stem.removeprefix("worker-") for path in workers) or "none: see the driver's log, without --rank"
        raise JobError("GTJ0118", f"no log of rank {rank}", where=str(run.path / "logs"), how=f"ranks with a log: {ranks}")
    return [wanted]


def silence(files: list[Path], keep: Keep) -> str:
    """Why nothing was printed."""
    held = [file for file in files if file.exists() and file.stat().st_size]
    if held:
        return f"no line of {listed([file.name for file in held], 'and')} is kept by --since and --grep"
    return f"nothing was written yet: {listed([str(file) for file in files], 'and')} {'are' if len(files) > 1 else 'is'} empty"


def existing(files: Iterable[Path], keep: Keep) -> Iterator[tuple[Path, str]]:
    for file in files:
        yield from wanted(file, read(file, 0), keep, Times())


def tail(files: list[Path], keep: Keep, run: Run, sleep: Callable[[float], None]) -> Iterator[tuple[Path, str]]:
    """Lines as they are written, whole lines only, until the run has ended and everything is read. New workers' logs join in."""
    offsets: dict[Path, int] = {}
    times: dict[Path, Times] = {}
    single = len(files) == 1 and files[0] != run.driver_log
    while True:
        ended = run.phase() not in LIVE
        for file in files if single else chosen(run, None):
            data = read(file, offsets.get(file, 0))
            whole = data if ended else data[: data.rfind(b"\n") + 1]
            offsets[file] = offsets.get(file, 0) + len(whole)
            yield from wanted(file, whole, keep, times.setdefault(file, Times()))
        if ended:
            return
        sleep(POLL)


def read(file: Path, offset: int) -> bytes:
    """What is in the file from `offset` on; nothing when it is not there."""
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read()
    except OSError:
        return b""


@dataclass
class Times:
    """The last time seen in a file, for the lines that carry none."""

    last: float | None = None


def wanted(file: Path, data: bytes, keep: Keep, times: Times) -> Iterator[tuple[Path, str]]:
    for line in data.decode("utf-8", errors="replace").splitlines():
        times.last = written(line) or times.last
        recent = keep.since is None or times.last is None or times.last >= keep.since
        if recent and (keep.pattern is None or keep.pattern.search(line)):
            yield file, line


def written(line: str) -> float | None:
    """The time a line begins with; local time unless it names a zone."""
    match = STAMP.match(line)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(match[1] + (match[2] or "")).timestamp()
    except ValueError:
        return None


def period(text: str) -> int:
    if not re.fullmatch(r"(?=.)(\d+h)?(\d+m)?(\d+s)?", text):
        raise click.BadParameter(f'"{text}" is not a period such as 45s, 5m or 1h30m', param_hint="--since")
    return seconds(text)


def expression(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text is not None else None
    except re.error as error:
        raise click.BadParameter(f"not a regular expression: {error}", param_hint="--grep") from None


def label(file: Path) -> str:
    return file.stem.replace("worker-", "rank ")
