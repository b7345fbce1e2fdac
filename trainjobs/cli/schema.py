"""gtj schema."""

from __future__ import annotations

from pathlib import Path

import click

from trainjobs.api.errors import JobError
from trainjobs.api.schema import schema_text


@click.command("schema", short_help="Print the JSON schema of manifests, for editors.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; default: standard output.")
def command(output: Path | None) -> None:
    """Print the JSON schema (draft 2020-12) of manifests. Editors find it by a manifest's first line:

    \b
    # yaml-language-server: $schema=gentrain.schema.json
    """
    if output is None:
        click.echo(schema_text(), nl=False)
        return
    try:
        output.write_text(schema_text(), encoding="utf-8")
    except OSError as error:
        raise JobError("GTJ0114", "the schema cannot be written", where=str(output), why=error.strerror or str(error)) from None
    click.echo(f"wrote {output}")
