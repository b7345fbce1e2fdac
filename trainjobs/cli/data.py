"""gtj data: what the data of a job is, before anything is trained: a table, and the first samples as the model will see them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job, Spec
from trainjobs.api.shape import dotted
from trainjobs.api.uris import builtin
from trainjobs.cli.diagnostics import rendered
from trainjobs.cli.manifest import load_job
from trainjobs.cli.output import RUNS, emit, format_option, painted
from trainjobs.cli.survey import printed
from trainjobs.data.survey import Survey, survey
from trainjobs.run.folder import Run

if TYPE_CHECKING:
    from trainjobs.data.forms.records import Records
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
    with cache_of(job) as cache:
        found = surveys(job.spec, cache)
        sheet = None if no_picture else first_samples(job.spec, cache)
    kept = saved(sheet, out or Path("data")) if sheet else None
    if form != "table":
        emit({"name": job.metadata.name, "sources": [one.as_data() for one in found], "samples": str(kept) if kept else None}, form)
        return 0
    click.echo(printed(found))
    for number, text in enumerate(sheet.texts[:SHOWN] if sheet else (), start=1):
        click.echo(f"\ntext {number}, │ between tokens, ▮ where a document ends\n{text}")
    if kept:
        click.echo(f"\n  first samples   {kept}")
    return 0


@contextmanager
def cache_of(job: Job) -> Iterator[Path]:
    """The cache of the job's run where there is a run, so that nothing is made twice; else one that is taken away again."""
    run = RUNS / job.metadata.name
    if Run(run).exists:
        yield run / "cache"
        return
    with tempfile.TemporaryDirectory(prefix="gtj-data-") as folder:
        yield Path(folder)


def surveys(spec: Spec, cache: Path) -> list[Survey]:
    """Of each source of the data."""
    if builtin(spec.data.uri) is not None:
        return [of_built_in(spec, cache)]
    if spec.language and (ready := of_prepared(spec, cache)) is not None:
        return [ready]
    with tempfile.TemporaryDirectory(prefix="gtj-data-") as looked:
        return [of_source(spec, part.source, cache, Path(looked)) for part in spec.data.parts]


def of_source(spec: Spec, uri: str, cache: Path, looked: Path) -> Survey:
    """Of one that lies somewhere. Its index is kept in `cache`, what is small of it in `looked`."""
    from trainjobs.data.forms.open import open_records
    from trainjobs.data.forms.roles import roles
    from trainjobs.data.places.open import BEFORE, open_place
    from trainjobs.data.places.place import Listed, Place
    from trainjobs.data.places.sparing import Sparing, cheap
    from trainjobs.data.rows import divided
    from trainjobs.data.splits import divide
    from trainjobs.stores.patience import Patience

    data, shelf = spec.data, Sparing(looked)

    def opened(place: Place, listed: Listed, names: Sequence[str], data: Data = data) -> Records:
        wanted = set(names)
        objects = tuple(one for one in listed.objects if one.name in wanted)
        wants: Literal["text", "image", ""] = "text" if spec.language else "" if spec.custom else "image"
        return open_records(place, replace(listed, objects=objects), data, shelf, cache, say=said, wants=wants)

    def counted(place: Place, listed: Listed, names: Sequence[str]) -> int:
        return rows(opened(place, listed, names, data.model_copy(update={"labels": "none", "limit": None})))

    place = open_place(uri, patience=Patience(BEFORE))
    listed = place.listed()
    split = divide([one.name for one in listed.objects], listed.splits, data.split, place.uri)
    records, words, exact = opened(place, listed, split.train), [*split.words()], True
    train, named = rows(records), data.split.validation or ""
    if "://" in named:
        other = open_place(named, patience=Patience(BEFORE))
        there = other.listed()
        held, words = counted(other, there, [one.name for one in there.objects]), [*words, f"held out {other.uri}"]
    elif split.validation:
        held = counted(place, listed, split.validation)
    elif exact := cheap(tuple(dict.fromkeys(one for block in records.blocks for one in block.objects))):
        held = len(divided(records, data, "sample")[1])
    else:
        held = round(train * data.holdout)
    if not split.validation and "://" not in named:
        train -= held
    found = roles(records.columns, data.columns, data.text.field, spec.family)
    if data.labels == "folder" and "folder" in records.columns:
        found = {"label": "folder", **found}
    return survey(records, found, shelf, train, held, words, exact=exact)


def rows(records: Records) -> int:
    return sum(block.rows for block in records.blocks)


def said(words: str) -> None:
    click.echo(painted(words, dim=True), err=True)


def of_built_in(spec: Spec, cache: Path) -> Survey:
    from trainjobs.data import open_source, preflight

    words, info = preflight(spec), open_source(spec, cache).info
    return Survey(spec.data.uri, (words,), (), info.length, info.heldout, 0, 0)


def of_prepared(spec: Spec, cache: Path) -> Survey | None:
    """Of tokens that gtj prepare made; None of other data. Samples are sequences."""
    from trainjobs.data import look, open_source
    from trainjobs.data.prepared import line, prepared

    found = look(spec)
    made = prepared(spec, found[0])
    if made is None or len(found) > 1:
        return None
    info = open_source(spec, cache, found).info
    return Survey(found[0].uri, (line(made),), (), info.length, info.heldout, len(made.shards), made.total("bytes"))


def first_samples(spec: Spec, cache: Path) -> Sheet:
    from trainjobs.data import open_source
    from trainjobs.evaluate.sheet import first

    return first(open_source(spec, cache), spec.training.seed)


def saved(sheet: Sheet, out: Path) -> Path:
    """JobError GTJ0114."""
    stem = out.with_suffix("") if out.suffix in (".png", ".txt") else out
    try:
        return sheet.save(stem)
    except OSError as error:
        why, how = error.strerror or str(error), "name another file with --out, or leave it out with --no-picture"
        raise JobError("GTJ0114", "the first samples cannot be written", where=str(out), why=why, how=how) from error
