"""gtj data: what the data of a job is, before anything is trained: a table, and the first samples as the model will see them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job, Spec
from trainjobs.api.shape import dotted
from trainjobs.api.uris import builtin
from trainjobs.cli.diagnostics import rendered
from trainjobs.cli.manifest import load_job
from trainjobs.cli.output import RUNS, emit, format_option, painted
from trainjobs.cli.survey import printed
from trainjobs.run.folder import Run

if TYPE_CHECKING:
    from trainjobs.data.found import Found
    from trainjobs.evaluate.sheet import Sheet

SHOWN = 2  # texts in the terminal; the file holds more


@click.command("data", short_help="Show what the data is, as the model will see it.")
@click.option("-f", "--file", "source", required=True, metavar="FILE", help='Manifest; "-" reads standard input.')
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Change a field first, as gtj run does: --set data.limit=1000.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Where the first samples go; default: ./data.png, of texts ./data.txt."
)
@click.option("--no-picture", is_flag=True, help="The table only, which is quicker.")
@format_option
def command(source: str, sets: tuple[str, ...], out: Path | None, no_picture: bool, form: str) -> int:
    """Show what the data of a manifest is: its columns and what they stand for, how many samples and how large, duplicates, and the first
    samples as the model will see them, augmentations included. Nothing is trained, and no GPU is used."""
    manifest = load_job(source, sets, here=True)
    assert manifest.job is not None, "load_job raises for a manifest with problems"
    job = manifest.job
    for path, uri in manifest.resolved:
        click.echo(painted(f"{dotted(path)} is {uri}", dim=True), err=True)
    if manifest.notes:
        click.echo(rendered(manifest.notes), err=True)
    from trainjobs.data.surveys import surveys

    with cache_of(job) as cache:
        looked = sources(job.spec)
        found = surveys(job.spec, looked, cache, say=said)
        sheet = None if no_picture else first_samples(job.spec, cache, looked)
    kept = saved(sheet, out or Path("data")) if sheet else None
    if form != "table":
        emit({"name": job.metadata.name, "sources": [one.as_data() for one in found], "samples": str(kept) if kept else None}, form)
        return 0
    click.echo(printed(found))
    for number, text in enumerate(sheet.texts[:SHOWN] if sheet else (), start=1):
        click.echo(f"\ntext {number}, │ between tokens, ▮ where a document ends{', ⟦learned⟧' if '⟦' in text else ''}\n{coloured(text)}")
    if kept:
        click.echo(f"\n  first samples   {kept}")
    return 0


def coloured(text: str) -> str:
    """What is learned in green, where there are colours."""
    return re.sub("⟦(.*?)⟧", lambda found: painted(found[0], "green"), text, flags=re.DOTALL)


@contextmanager
def cache_of(job: Job) -> Iterator[Path]:
    """The cache of the job's run where there is a run, so that nothing is made twice; else one that is taken away again."""
    run = RUNS / job.metadata.name
    if Run(run).exists:
        yield run / "cache"
        return
    with tempfile.TemporaryDirectory(prefix="gtj-data-") as folder:
        yield Path(folder)


def said(words: str) -> None:
    click.echo(painted(words, dim=True), err=True)


def sources(spec: Spec) -> tuple[Found, ...]:
    from trainjobs.data.found import look
    from trainjobs.data.places.open import BEFORE
    from trainjobs.stores.patience import Patience

    return look(spec, {}, Patience(BEFORE)) if builtin(spec.data.uri) is None else ()


def first_samples(spec: Spec, cache: Path, found: Sequence[Found]) -> Sheet:
    from trainjobs.data import open_source
    from trainjobs.evaluate.sheet import first

    return first(open_source(spec, cache, found), spec.training.seed)


def saved(sheet: Sheet, out: Path) -> Path:
    """JobError GTJ0114."""
    stem = out.with_suffix("") if out.suffix in (".png", ".txt") else out
    try:
        return sheet.save(stem)
    except OSError as error:
        why, how = error.strerror or str(error), "name another file with --out, or leave it out with --no-picture"
        raise JobError("GTJ0114", "the first samples cannot be written", where=str(out), why=why, how=how) from error
