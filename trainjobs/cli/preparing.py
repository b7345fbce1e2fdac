"""gtj prepare: what a run would do with its data at its start, done ahead, into shards in a place."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from trainjobs.api.data import size_in_bytes
from trainjobs.api.job import Job
from trainjobs.cli.data import cache_of, sources
from trainjobs.cli.manifest import load_job
from trainjobs.cli.output import painted
from trainjobs.cli.survey import size

if TYPE_CHECKING:
    from trainjobs.data.prepare import Work
    from trainjobs.data.prepare_shards import Task

THREADS = 4  # each holds a shard's part in memory; encoding and Pillow use all cores
EVERY = 10.0  # seconds between two lines where there is no terminal
_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?")


@click.command("prepare", short_help="Prepare data ahead, into shards.")
@click.option("-f", "--file", "source", required=True, metavar="FILE", help='Manifest; "-" reads standard input.')
@click.option("--out", required=True, metavar="URI", help="Where the shards go: file:///folder, s3://bucket/folder, gs://, az://.")
@click.option("--shard-size", default="256Mi", metavar="SIZE", help="Bytes of the data that make a shard; default: 256Mi.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Change a field first, as gtj run does.")
@click.option(
    "--ray/--no-ray",
    "on_ray",
    default=None,
    help="On a Ray cluster: that of RAY_ADDRESS, else one that runs on this machine. Default: where RAY_ADDRESS is set.",
)
@click.option(
    "--teacher", is_flag=True, help="Put what language.distill.teacher says there, in place of the data: for language.distill.prepared."
)
def command(source: str, out: str, shard_size: str, sets: tuple[str, ...], on_ray: bool | None, teacher: bool) -> int:
    """Do ahead what a run does with its data at its start: encode text into tokens, or decode, scale and crop pictures, into shards in a
    place, with their digests in prepared.json. Interrupted, it goes on where it stopped. Then name the place as data.source."""
    if not _SIZE.fullmatch(shard_size) or size_in_bytes(shard_size) < 1:
        raise click.UsageError(f"--shard-size {shard_size} is no size: write 256Mi, 1Gi or 500M")
    from trainjobs.data.dataset import Reading
    from trainjobs.data.prepare import prepare
    from trainjobs.stores.open import open_store

    manifest = load_job(source, sets, here=True)
    assert manifest.job is not None, "load_job raises for a manifest with problems"
    if teacher:
        if on_ray:
            raise click.UsageError("--ray with --teacher: a teacher is asked by this machine alone")
        return taught(manifest.job, out)
    store, progress = open_store(out), Progress()
    spec, clustered = manifest.job.spec, "RAY_ADDRESS" in os.environ if on_ray is None else on_ray
    with ExitStack() as around:
        cache = around.enter_context(cache_of(manifest.job))
        work: Work = threads
        if clustered:
            from trainjobs.workers.ray_train.shards import cluster

            work = around.enter_context(cluster(spec.model_dump_json(by_alias=True), out, size_in_bytes(shard_size)))
        reading = Reading(cache, say=progress.say)
        try:
            made = prepare(spec, store, reading, size_in_bytes(shard_size), work, show=progress.show)
        finally:
            progress.close()
    count, words = len(made.prepared.shards) - made.before, [f"{made.rows:,} {'rows' if made.prepared.kind == 'tokens' else 'pictures'}"]
    if made.prepared.kind == "tokens":
        words.append(f"{made.tokens:,} tokens")
    rate = (made.tokens if made.prepared.kind == "tokens" else made.rows) / max(made.seconds, 1e-9)
    noun = "tokens" if made.prepared.kind == "tokens" else "pictures"
    there = f"; {made.before:,} were there" if made.before else ""
    click.echo(f"prepared {count:,} shard{'' if count == 1 else 's'}, {', '.join(words)}, {size(made.bytes)}{there}")
    if count:
        click.echo(f"  {made.seconds:.1f} s, {rate:,.0f} {noun}/s")
    click.echo(f"  train on it: data.source: {store.uri}")
    if made.columns:
        click.echo(f"  with it: data.columns: {{{', '.join(made.columns)}}}")
    return 0


def taught(job: Job, out: str) -> int:
    """What the teacher says of the job's data, into a place."""
    import torch

    from trainjobs.api.errors import JobError
    from trainjobs.checkpointer.taught_ahead import prepared
    from trainjobs.data import open_source
    from trainjobs.world import World

    language = job.spec.language
    if language is None or language.method != "distill" or language.distill.top_k is None:
        how = "set language.method: distill, and how many of the teacher's likeliest tokens are wanted in language.distill.topK"
        raise JobError("GTJ0108", "no teacher is asked ahead", where="--teacher", how=how)
    began, progress = time.monotonic(), Progress(noun="files")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with cache_of(job) as cache:
        opened = open_source(job.spec, cache, sources(job.spec), say=progress.say)
        try:
            files, before = prepared(job.spec, opened, cache, out, World(0, 1, device), lambda done, of: progress.show(done, of, 0))
        finally:
            progress.close()
    there = f"; {before:,} were there" if before else ""
    click.echo(f"prepared what the teacher says of {opened.info.length + opened.info.heldout:,} samples, {files - before:,} files{there}")
    click.echo(f"  {time.monotonic() - began:.1f} s on {device.type}")
    click.echo(f"  train on it: language.distill.prepared: {out}")
    return 0


def threads(one: Callable[[Task], dict[str, Any]], tasks: Sequence[Task]) -> Iterable[tuple[Task, dict[str, Any]]]:
    """On this machine, several at once; after an error no more are begun."""
    pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
    try:
        for future in as_completed(begun := {pool.submit(one, task): task for task in tasks}):
            yield begun[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


class Progress:
    """A live line on a terminal, a plain one every ten seconds anywhere else; on stderr."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, noun: str = "shards") -> None:
        self._noun = noun
        self._clock, self._began, self._said, self._live = clock, clock(), clock(), sys.stderr.isatty()

    def show(self, done: int, of: int, made: int) -> None:
        now = self._clock()
        line = f"{done:,} of {of:,} {self._noun}, {f'{size(made)}, ' if made else ''}{now - self._began:.0f} s"
        if self._live:
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        elif now - self._said >= EVERY:
            self._said = now
            click.echo(line, err=True)

    def say(self, words: str) -> None:
        self.close()
        click.echo(painted(words, dim=True), err=True)

    def close(self) -> None:
        """Takes the live line away."""
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)
