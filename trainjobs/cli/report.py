"""gtj report: writes a run's report.html anew."""

from __future__ import annotations

import click

from trainjobs.cli.output import emit, find, format_option, name_argument


@click.command("report", short_help="Write a run's report: one HTML file.")
@name_argument
@format_option
def command(name: str, form: str) -> None:
    """Write the report of the run NAME (under ./gentrain-runs, or a folder): one HTML file that needs no network."""
    run = find(name)
    from trainjobs.report.page import write_report

    path = write_report(run.path)
    if form == "table":
        click.echo(str(path))
    else:
        emit({"name": run.path.name, "report": str(path), "bytes": path.stat().st_size}, form)
