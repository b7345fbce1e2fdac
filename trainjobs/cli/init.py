"""gtj init: a commented manifest to start from; for a custom job the Python file beside it, too."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path

import click

from trainjobs.api.errors import JobError
from trainjobs.api.fields import DNS_SUBDOMAIN

KINDS = ("gan", "vae", "diffusion", "language", "custom")


@click.command("init", short_help="Write a commented manifest to start from.")
@click.argument("family", type=click.Choice(KINDS))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; default: standard output.")
@click.option("--name", help="Name of the job; default: the file's name.")
def command(family: str, output: Path | None, name: str | None) -> int:
    """Write a commented manifest for a gan, vae, diffusion or language model. It trains as it is, in minutes, without a network.

    For a custom one, a model of your own, the Python file that it names is written beside it: -o mine.yaml gives the module mine_objective.
    """
    if name is None and output is not None and re.fullmatch(DNS_SUBDOMAIN, output.stem) and output.stem != "job":
        name = output.stem
    if name is not None and not re.fullmatch(DNS_SUBDOMAIN, name):
        how = "use lower-case letters, digits and dashes"
        raise JobError("GTJ0102", f'"{name}" is no name for a job', where="--name", why="Kubernetes would refuse it", how=how)
    if family == "custom" and output is None:
        raise click.UsageError("a custom job is two files, the manifest and your Python code: name the first, gtj init custom -o mine.yaml")
    text = template(family, name)
    code = objective(output) if family == "custom" and output is not None else None
    if code is not None:
        text = text.replace("OBJECTIVE", code.stem)
    if output is None:
        click.echo(text, nl=False)
        return 0
    if code is not None:
        if output.exists():
            raise taken(output)
        write(code, files("trainjobs.cli").joinpath("templates", "objective.py").read_text(encoding="utf-8"))
        click.echo(f"wrote {code}\n  your model, to change")
    write(output, text)
    schema = output.with_name("gentrain.schema.json")
    # Python finds the module where the command is run, and on PYTHONPATH.
    where = f"PYTHONPATH={shlex.quote(str(code.parent))} " if code is not None and code.parent.resolve() != Path.cwd() else ""
    click.echo(f"wrote {output}\n  train it here:           {where}gtj run -f {shlex.quote(str(output))}")
    if not schema.exists():
        click.echo(f"  help from your editor:   gtj schema -o {schema}")
    return 0


def write(path: Path, text: str) -> None:
    """A new file. UsageError for one that is there, GTJ0114 where none can be."""
    try:
        # "x" refuses an existing file even when it appears this very moment.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise taken(path) from None
    except OSError as error:
        raise JobError("GTJ0114", f"{path.name} cannot be written", where=str(path), why=error.strerror or str(error)) from None


def taken(path: Path) -> click.UsageError:
    return click.UsageError(f"{path} is there already, and may hold your work: choose another file")


def objective(manifest: Path) -> Path:
    """The Python file of a custom job, beside its manifest, under a name that can be imported."""
    return manifest.with_name(re.sub(r"\W|^(?=\d)", "_", manifest.stem, flags=re.ASCII) + "_objective").with_suffix(".py")


def template(family: str, name: str | None = None) -> str:
    """The manifest of a family, under another name when one is given."""
    text = files("trainjobs.cli").joinpath("templates", f"{family}.yaml").read_text(encoding="utf-8")
    return text if name is None else re.sub(r"(?m)^metadata: \{name: .*\}$", f"metadata: {{name: {name}}}", text)
