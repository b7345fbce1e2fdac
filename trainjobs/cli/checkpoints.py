"""gtj checkpoints: what a run has saved, whether it is whole, a copy of it, and its weights for others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, Commit, CommitStatus, Corrupt, locate, open_store
from trainjobs.cli.output import emit, find, format_option, name_argument, painted, table
from trainjobs.run.numbers import duration, short, size


@click.group("checkpoints", short_help="List, verify, fetch and export checkpoints.")
def command() -> None:
    """What a run has saved. NAME is a run under ./gentrain-runs, a run's folder, or a URI (file://, s3://, gs://, az://)."""


@command.command("ls")
@name_argument
@format_option
def ls(name: str, form: str) -> None:
    """List the checkpoints of NAME, newest last."""
    uri, statuses = opened(name)
    if form != "table":
        emit([as_data(status, uri) for status in statuses], form)
    elif not statuses:
        click.echo(f"no checkpoint under {uri}", err=True)
    else:
        now = time.time()
        header = ("STEP", "ATTEMPT", "SIZE", "WORKERS", "AGE", "STATE", "METRICS", "PREFIX")
        click.echo(table(header, [cells(status, now) for status in statuses]))


@command.command("verify")
@name_argument
@format_option
def verify(name: str, form: str) -> int:
    """Read every byte of the live checkpoints of NAME, or of the one that a URI names, against their digests.

    Ends with 5 when one is corrupt. Nothing is changed: the trainer marks a corrupt checkpoint when it meets it.
    """
    uri = store_of(name)
    checkpoints = Checkpoints(open_store(uri), keep=Keep()) if "/steps/" not in uri else None
    if checkpoints is None:
        checkpoints, only = locate(uri)
        commits = [only]
    else:
        commits = [status.commit for status in checkpoints.commits() if status.state == "live"]
    if not commits:
        raise JobError("GTJ0118", "no checkpoint to verify", where=uri)
    results = [(commit, verdict(checkpoints, commit)) for commit in commits]
    if form != "table":
        emit([{"step": commit.step, "uri": checkpoints.uri(commit), "whole": not why, "why": why} for commit, why in results], form)
    else:
        for commit, why in results:
            mark = painted("corrupt", "red") if why else painted("whole", "green")
            click.echo(f"step {commit.step}  {mark}  {why or size(commit.size_bytes)}")
    return 5 if any(why for _, why in results) else 0


@command.command("pull")
@name_argument
@click.argument("folder", type=click.Path(path_type=Path))
def pull(name: str, folder: Path) -> None:
    """Copy a checkpoint into FOLDER, verified: the newest of NAME, or the one that a URI names.

    Each rank's files come to FOLDER/rank-<r>, in place of what is there.
    """
    checkpoints, commit = locate(store_of(name))
    checkpoints.fetch(commit, range(commit.world), folder)
    click.echo(f"step {commit.step}  {size(commit.size_bytes)}  {folder}")


@command.command("export")
@name_argument
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True, help="Type of the weights.")
@click.option(
    "--weights", type=click.Choice(["ema", "live"]), help="Moving average or last weights; default: the average where there is one."
)
@click.option("--adapter", is_flag=True, help="Of a model trained with an adapter, that adapter as peft loads it (what is written anyway).")
@click.option("--merge", is_flag=True, help="Of a model trained with an adapter, the base with the adapter's changes in its weights.")
@click.option(
    "--style", type=click.Choice(["diffusers", "kohya"]), help="Keys of a pipeline's low-rank changes; default: diffusers, ComfyUI: kohya."
)
def export(name: str, folder: Path, dtype: str, weights: str | None, adapter: bool, merge: bool, style: str | None) -> None:
    """Write a checkpoint's networks into FOLDER as safetensors: the newest of NAME, or the one that a URI names.

    A language model is written in Hugging Face's layout, with its tokenizer; what was trained of a pipeline as diffusers loads it. FOLDER
    is new or empty.
    """
    from trainjobs.export.companion import whole as write

    checkpoints, commit = locate(store_of(name))
    job = None if "://" in name else find(name).spec()

    def complete(partial: Path) -> bool:
        """Whether the average's statistics are in it now: to draw with it one must know how, and have a manifest where the model is of the
        user's own."""
        if "drawing" not in commit.metadata or ("custom" in commit.metadata["spec"] and job is None):
            return False
        from trainjobs.sampling.norms import write as settle  # with torch, which others need not wait for

        settle(partial, name, job)
        return True

    done = write(checkpoints, commit, folder, weights=weights, dtype=dtype, adapter=adapter, merge=merge, style=style, complete=complete)
    which = "moving average" if done.weights == "ema" else "live weights"
    which += f" (live weights of {', '.join(done.live)})" if done.live else ""
    form = "Hugging Face's layout" if done.hugging_face else "plain safetensors"
    form = "diffusers' layout" if done.pipeline else form
    form = "adapter" if done.adapter else form
    click.echo(f"step {commit.step}  {which}  {dtype}  {', '.join(done.networks)}  {size(done.size)}  {form}  {folder}")
    if done.adapter and done.pipeline:
        click.echo("the pipeline is not in the export: gentrain.json names it", err=True)
    elif done.adapter:
        click.echo("the base is not in the export: gentrain.json and adapter_config.json name it, --merge writes both as one", err=True)
    elif done.frozen:
        click.echo("weights that were not trained are neither in the checkpoint nor in the export", err=True)
    if not done.settled:
        how = "name the run's folder for those of the average" if "custom" in commit.metadata["spec"] else "gtj sample finds the average's"
        click.echo(f"batch norm's statistics are those of the live weights: {how}", err=True)


def store_of(name: str) -> str:
    return name if "://" in name else find(name).checkpoints_uri()


def opened(name: str) -> tuple[str, list[CommitStatus]]:
    uri = store_of(name).split("/steps/")[0]
    return uri, Checkpoints(open_store(uri), keep=Keep()).commits()


def verdict(checkpoints: Checkpoints, commit: Commit) -> str:
    """ "" for a checkpoint that is whole, else what is wrong with it."""
    try:
        checkpoints.verify(commit)
    except Corrupt as error:
        return str(error)
    return ""


def cells(status: CommitStatus, now: float) -> tuple[str, ...]:
    commit = status.commit
    metrics = " ".join(f"{name} {short(value)}" for name, value in sorted(commit.metrics.items())[:2]) or "-"
    state = f"{status.state}: {status.why}" if status.why else status.state
    age = duration(now - commit.committed_at)
    return str(commit.step), str(commit.attempt), size(commit.size_bytes), str(commit.world), age, state, metrics, commit.prefix


def as_data(status: CommitStatus, uri: str) -> dict[str, Any]:
    commit = status.commit
    return {
        "step": commit.step,
        "attempt": commit.attempt,
        "samples": commit.samples,
        "uri": f"{uri}/{commit.prefix}",
        "committedAt": commit.committed_at,
        "sizeBytes": commit.size_bytes,
        "workers": commit.world,
        "digest": commit.manifest_digest,
        "metrics": dict(commit.metrics),
        "state": status.state,
        "why": status.why,
    }
