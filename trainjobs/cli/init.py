"""gtj init: a commented manifest to start from."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import click

from trainjobs.api.errors import JobError
from trainjobs.api.fields import DNS_SUBDOMAIN

KINDS = ("gan", "vae", "diffusion", "language")


@click.command("init", short_help="Write a commented manifest to start from.")
@click.argument("family", type=click.Choice(KINDS))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; default: standard output.")
@click.option("--name", help="Name of the job; default: the file's name.")
def command(family: str, output: Path | None, name: str | None) -> int:
    """Write a commented manifest for a gan, vae, diffusion or language model. It trains as it is, in minutes, without a network."""
    if name is None and output is not None and re.fullmatch(DNS_SUBDOMAIN, output.stem) and output.stem != "job":
        name = output.stem
    if name is not None and not re.fullmatch(DNS_SUBDOMAIN, name):
        how = "use lower-case letters, digits and dashes"
        raise JobError("GTJ0102", f'"{name}" is no name for a job', where="--name", why="Kubernetes would refuse it", how=how)
    text = template(family, name)
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        # "x" refuses an existing file even when it appears this very moment.
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.UsageError(f"{output} is there already, and may hold your work: choose another file") from None
    except OSError as error:
        raise JobError("GTJ0114", "the manifest cannot be written", where=str(output), why=error.strerror or str(error)) from None
    schema = output.with_name("gentrain.schema.json")
    click.echo(f"wrote {output}\n  train it here:           gtj run -f {output}")
    if not schema.exists():
        click.echo(f"  help from your editor:   gtj schema -o {schema}")
    return 0


def template(family: str, name: str | None = None) -> str:
    """The manifest of a family, under another name when one is given."""
    text = files("trainjobs.cli").joinpath("templates", f"{family}.yaml").read_text(encoding="utf-8")
    return text if name is None else re.sub(r"(?m)^metadata: \{name: .*\}$", f"metadata: {{name: {name}}}", text)
