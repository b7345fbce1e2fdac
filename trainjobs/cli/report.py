"""gtj report: writes a run's report.html anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from trainjobs.cli.output import emit, find, format_option, name_argument


@click.command("report", short_help="Write a run's report: one HTML file.")
@name_argument
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to; default: in the run's folder, of a URI NAME.html here."
)
@format_option
def command(name: str, out: Path | None, form: str) -> None:
    """Write the report of the run NAME (under ./gentrain-runs, a folder, or the URI of its checkpoints): one HTML file.

    The page needs no network.
    """
    run = find(name, parts=("samples", "logs"))
    from trainjobs.report.page import write_report

    path = write_report(run.path)
    if out is not None or "://" in name:
        path = Path(shutil.copyfile(path, out or Path(f"{run.path.name}.html")))
    if form == "table":
        click.echo(str(path))
    else:
        emit({"name": run.path.name, "report": str(path), "bytes": path.stat().st_size}, form)
