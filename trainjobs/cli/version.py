"""gtj version."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from trainjobs.cli.output import emit, format_option

PARTS = ("torch", "deepspeed", "ray", "transformers")


@click.command("version", short_help="Print the versions of gentrain and of what it stands on.")
@format_option
def command(form: str) -> None:
    """Print the versions of gentrain and of what it stands on."""
    versions = {"gentrain": installed("gentrain") or "source", "python": platform.python_version()}
    versions |= {name: installed(name) or "not installed" for name in PARTS}
    if form == "table":
        click.echo("\n".join(f"{name:<13}{version}" for name, version in versions.items()))
    else:
        emit(versions, form)


def installed(name: str) -> str | None:
    """The version of a distribution, read from its metadata: importing torch to ask would take seconds."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
