"""What the reading verbs share: `-o table|json|yaml`, tables without a library, and finding a run by name or folder."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trainjobs.api.errors import JobError
from trainjobs.run.folder import Run

if TYPE_CHECKING:
    from trainjobs.stores.store import BlobStore

F = TypeVar("F", bound=Callable[..., Any])

RUNS = Path("gentrain-runs")
CLUSTER = "; for a job on the cluster add --cluster or -n NAMESPACE"

PHASE_COLOURS = {"Succeeded": "green", "Running": "cyan", "Failed": "red", "Interrupted": "yellow", "Stopped": "yellow"}


def format_option(command: F) -> F:
    """`-o table|json|yaml`, handed to the command as `form`."""
    option = click.option(
        "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="How to print it."
    )
    return option(command)


def emit(data: Any, form: str) -> None:
    """Prints data for programs. `form` is json or yaml."""
    if form == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns three spaces apart, as kubectl prints them. Colours do not count as width."""
    widths = [max(len(click.unstyle(row[column])) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )


def entry(name: str, text: str) -> str:
    """A line of `gtj status`."""
    return f"  {name:<11}{text}"


def folded(head: str, text: str, width: int) -> list[str]:
    """`head` and `text` in lines of at most `width` columns, broken between words, later ones indented to the text."""
    lines = textwrap.wrap(text, max(20, width - len(head)), break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{head}{lines[0]}".rstrip(), *(" " * len(head) + line for line in lines[1:])]


def columns() -> int:
    """The terminal's width; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def coloured(phase: str) -> str:
    return painted(phase, PHASE_COLOURS.get(phase))


def painted(text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
    """Text in a colour, unless the user has set NO_COLOR. click takes colours away where there is no terminal."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour, bold=bold or None, dim=dim or None)


def runs(root: Path = RUNS) -> list[Run]:
    """Every run folder under `root`, by name."""
    if not root.is_dir():
        return []
    return [run for run in map(Run, sorted(root.iterdir())) if run.exists]


def find(name: str, root: Path = RUNS, *, elsewhere: str = "", parts: tuple[str, ...] = ()) -> Run:
    """The run of that name under `root`, or the run in that folder. GTJ0118, with the nearest name, when there is none.

    `elsewhere` ends the message: where else the verb could have looked. A URI names a run by where its checkpoints are; what is returned
    then is put together from its record, and gone when the command ends. `parts` are what is wanted of it beside the small files.
    """
    if "://" in name:
        return record(name, parts)
    for path in (root / name, Path(name)):
        if Run(path).exists:
            return Run(path)
    names = [run.path.name for run in runs(root)]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        how = f'did you mean "{close[0]}"?'
    elif names:
        how = f"runs here: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    else:
        how = "give the run's folder, or start one with: gtj run -f job.yaml"
    raise JobError("GTJ0118", f'no run called "{name}"', where=str(root), how=how + elsewhere)


def record(uri: str, parts: tuple[str, ...]) -> Run:
    """The run whose checkpoints are at a URI, from its record there."""
    from trainjobs.run.recorded import fetch

    folder = Path(click.get_current_context().with_resource(tempfile.TemporaryDirectory(prefix="gtj-")))
    with reading(uri) as store:
        fetch(store, folder / "run", lambda name: "/" not in name or name.split("/")[0] in parts)
    called = Run(folder / "run").name
    there = folder / (called if re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,252}", called) else "run")
    (folder / "run").rename(there)
    return Run(there)


@contextmanager
def reading(uri: str) -> Iterator[BlobStore]:
    """The store that a URI names. One that does not answer, or refuses, is GTJ0112."""
    from trainjobs.stores.open import open_store
    from trainjobs.stores.store import StoreError

    try:
        yield open_store(uri)
    except StoreError as error:
        how = "see that the URI and the credentials are right, and that the place can be reached from here"
        raise JobError(
            "GTJ0112", "a run's record cannot be read", where=f"{uri.rstrip('/')}/{error.key}", why=error.why, how=how
        ) from error


def complete_runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of runs for the shell's TAB."""
    return [run.path.name for run in runs() if run.path.name.startswith(incomplete)]


def name_argument(command: F) -> F:
    """NAME: a run under ./gentrain-runs, or a run's folder."""
    return click.argument("name", shell_complete=complete_runs)(command)
