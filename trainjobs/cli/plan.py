"""gtj plan: what a job needs before anything is paid for: memory by ZeRO stage, time and cost, and which nodes it fits."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job, Spec
from trainjobs.api.parse import parse_profile
from trainjobs.api.problem import did_you_mean
from trainjobs.api.profile import ProfileSpec
from trainjobs.cli.data import cache_of, sources
from trainjobs.cli.diagnostics import rendered
from trainjobs.cli.foreseen import keep
from trainjobs.cli.manifest import load_job, read, written
from trainjobs.cli.output import emit, format_option, painted
from trainjobs.cli.pace import history, probe
from trainjobs.cli.positions import documents
from trainjobs.cli.validate import summary
from trainjobs.plan import catalogue, prices
from trainjobs.plan.devices import DEVICES, REACHED, device
from trainjobs.plan.memory import SPARE
from trainjobs.plan.options import BEST, Option, Pool, Step, options

if TYPE_CHECKING:
    from trainjobs.data.pretrained import Pretrained
    from trainjobs.data.source import DataInfo, Source
    from trainjobs.objectives.phase import Rows

LOOKED = (4, 8)  # micro-batches that are looked at: what a larger one needs follows


@click.command("plan", short_help="Say what a job needs: memory, time, cost.")
@click.option("-f", "--file", "source", required=True, metavar="FILE", help='Manifest; "-" reads standard input.')
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Change a field first, as gtj run does.")
@click.option("-p", "--profile", "profiles", multiple=True, metavar="FILE", help="A ComputeProfile to plan for. May be repeated.")
@click.option("--gpu", "gpus", multiple=True, metavar="TYPE", help="A GPU to plan for, such as h100-80gb or l4. May be repeated.")
@click.option("--probe", "probed", is_flag=True, help="Train twenty steps on this machine, and go by how long they take.")
@format_option
def command(source: str, sets: tuple[str, ...], profiles: tuple[str, ...], gpus: tuple[str, ...], probed: bool, form: str) -> int:
    """Say what a job needs before anything is paid for: the memory of a rank by ZeRO stage and micro-batch, and, for the nodes of profiles
    or for GPUs, how long it may take and what that costs. For this machine that is by the job's own run, where there is one, else by
    --probe. Without --probe nothing is trained, and no GPU is used. Exit status 4 when nothing fits."""
    manifest = load_job(source, sets, here=True)
    assert manifest.job is not None, "load_job raises for a manifest with problems"
    job = manifest.job
    if manifest.notes:
        click.echo(rendered(manifest.notes), err=True)
    pools = [*(_of_profile(*one) for name in profiles for one in _profiles(name)), *map(_of_gpu, gpus)]
    if probed or not pools:
        pools.append(_here(job, probed))
    step, highest, unknown = _looked(job)
    found = options(job.spec, step, pools, highest=highest)
    if form != "table":
        emit({"name": job.metadata.name, "options": [_data(one) for one in found], "unknown": unknown or None}, form)
    else:
        click.echo("\n".join(_printed(job, step, found, unknown)))
    if not any(one.fits for one in found):
        raise _nothing(found[0])
    if not unknown:
        with contextlib.suppress(OSError):  # nothing but the comparison with what is measured goes without it
            keep(job, [one for one in found if one.fits], lambda one: str(_data(one)["basis"] or ""))
    return 0


def _looked(job: Job) -> tuple[Step, int, str]:
    """The step of a rank, the highest ZeRO stage it can have, and what could not be found."""
    with cache_of(job) as cache:
        from trainjobs.engine.fake_step import Unknown, counted, trace
        from trainjobs.objectives.build import build

        opened, info, base = _opened(job.spec, cache)
        make = partial(build, job.spec, info, base)
        weights, highest = counted(job.spec, make)
        try:
            found = {size: trace(job.spec, make, _rows(opened, info, size), 1) for size in LOOKED}
        except Unknown as error:
            return Step(weights, {}), highest, str(error)
        return Step(found[LOOKED[0]].weights, {size: (one.beside, one.flops) for size, one in found.items()}), highest, ""


def _opened(spec: Spec, cache: Path) -> tuple[Source, DataInfo, Pretrained | None]:
    """The data, what the model sees of it, and the base that the job goes on from, where it does."""
    from trainjobs.checkpointer.latent import info_of
    from trainjobs.data import open_source
    from trainjobs.data.job_template import tokenizer_of
    from trainjobs.data.places.place import ALONE
    from trainjobs.data.pretrained import of_job
    from trainjobs.export import companion

    base = of_job(spec, cache, ALONE)
    found = open_source(spec, cache, sources(spec), tokenizer=tokenizer_of(spec.language, base) if base and spec.language else None)
    if spec.diffusion is None or spec.diffusion.latents is None:
        return found, found.info, base
    from trainjobs.models.frozen_autoencoder import FrozenAutoencoder

    kept = companion.opened(spec.diffusion.latents.autoencoder, cache, ALONE, None)
    return found, info_of(found.info, FrozenAutoencoder.of(kept.folder, kept.uri)), base


def _rows(source: Source, info: DataInfo, size: int) -> Rows:
    import torch

    from trainjobs.data.source import squares
    from trainjobs.noise import Noise

    positions = torch.arange(size)
    rows = dict(squares(source).batch(positions, 0, Noise.of(0, 0, "plan", positions)))
    if "image" in rows and rows["image"].shape[1:] != info.shape:  # latents of them
        rows["image"] = torch.zeros(size, *info.shape)
    return rows


def _profiles(file: str) -> list[tuple[str, ProfileSpec]]:
    found = []
    for document in documents(read(file).decode()):
        content = written(document.data) if isinstance(document.data, dict) else {}
        if content.get("kind") != "ComputeProfile":
            continue
        profile, problems = parse_profile(content)
        if problems:
            raise problems[0].error()
        if profile is not None:
            found.append((str((content.get("metadata") or {}).get("name") or Path(file).stem), profile.spec))
    if not found:
        raise JobError("GTJ0118", "no ComputeProfile is in the file", where=file, how="gtj plan --gpu TYPE needs none")
    return found


def _of_profile(name: str, profile: ProfileSpec) -> Pool:
    there = device(profile.accelerator.type or "")
    kind = profile.node.instance_type or profile.selector.get("node.kubernetes.io/instance-type", "")
    listed = catalogue.nodes().get(kind)
    if there is None and listed:
        there = device(listed.gpu)
    if there is None:
        how = f"write one of {', '.join(DEVICES)} into accelerator.type"
        raise JobError("GTJ0102", f"what GPUs {name} has is not known", where="spec.accelerator.type", how=how)
    foreseen = prices.foreseen(profile)
    price = (float(foreseen.usd), foreseen.source) if foreseen else None
    if price is None and listed and profile.capacity != "reserved":
        region, usd = next(iter(listed.prices.items()), ("", ""))
        most = prices.MOST if profile.capacity == "spot" else ""
        price = (float(usd), f"{most}{catalogue.source(profile.provider)}, {region}") if usd else None
    return Pool(name, there.memory, there, profile.accelerator.per_node, *(price or (None, "")))


def _of_gpu(name: str) -> Pool:
    there = device(name)
    if there is None:
        how = did_you_mean(name, DEVICES) or f"there are {', '.join(DEVICES)}"
        raise JobError("GTJ0102", f'"{name}" is no GPU that a plan knows', where="--gpu", how=how)
    return Pool(there.name, there.memory, there)


def _here(job: Job, probed: bool) -> Pool:
    """This machine's memory, shared by the ranks of the job; and how long a step takes here, where that was measured."""
    found, why = history(job)
    if why:
        click.echo(painted(why, dim=True), err=True)
    return dataclasses.replace(_machine(job), pace=found or (probe(job) if probed else None))


def _machine(job: Job) -> Pool:
    import torch

    from trainjobs.engine.memory import available

    if job.spec.compute.gpus_per_worker and torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return Pool(found.name, int(found.total_memory))
    memory = available() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Pool("this machine", memory // (job.spec.compute.worker_range[1] * job.spec.compute.each))


def _printed(job: Job, step: Step, found: Sequence[Option], unknown: str) -> list[str]:
    weights = step.weights
    frozen = f"; {weights.frozen:,} frozen" if weights.frozen else ""
    lines = [summary(job), ""]
    lines.append(f"  trained  {', '.join(f'{name} {count:,}' for name, count in weights.trained.items())} weights{frozen}")
    if unknown:
        lines.append(f"  unknown  what a step needs beside its states: {unknown}; the figures are of the states alone")
    good, bad = [one for one in found if one.fits][:BEST], [one for one in found if not one.fits][: max(0, BEST - 2)]
    head = ("nodes", "ranks", "stage", "micro", "memory of a rank", "time", "cost")
    rows = [head, *(_row(one) for one in (*good, *bad))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", f"  {painted(table[0], dim=True)}", *(f"  {line}" for line in table[1:])]
    told = sorted({f"{one.pool.name}: {one.pool.source}" for one in good if one.usd and one.pool.source})
    told += sorted({f"time on {one.pool.name}: {one.pool.pace.basis}" for one in good if one.pool.pace and _measured(one)})
    if any(one.hours and not _measured(one) for one in good):
        low, high = (round(100 * share) for share in REACHED[job.spec.family])
        told.append(f"time: assumed, {low} to {high} % of the GPU's peak; training alone, without the start, evaluations and checkpoints")
    told.append(f"memory: {SPARE:.0%} of the device are kept free; see docs/concepts/plan.md for what is computed")
    return [*lines, "", *(painted(f"  {line}", dim=True) for line in told)]


def _row(one: Option) -> tuple[str, ...]:
    need = f"{_size(one.need)} of {_size(one.pool.memory)}" + ("" if one.fits else ": too much")
    hours = "unknown" if not one.hours else f"{_time(one.hours[0])} to {_time(one.hours[1])}" if one.hours[1] * 60 >= 1 else "under 1 min"
    hours += f" ({_basis(one)})" if one.hours else ""
    usd = f"${one.usd[0]:,.2f} to ${one.usd[1]:,.2f}" if one.usd else "unknown"
    accumulated = f"{one.cut.micro} x {one.cut.accumulation}" if one.cut.accumulation > 1 else str(one.cut.micro)
    return one.pool.name, str(one.cut.workers), str(one.stage), accumulated, need, hours, usd


def _measured(one: Option) -> bool:
    return one.pool.pace is not None and one.pool.pace.ranks == one.cut.workers


def _basis(one: Option) -> str:
    """What a time rests on, in a word or two."""
    return one.pool.pace.basis.partition(" on ")[0] if one.pool.pace is not None and _measured(one) else "assumed"


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def _time(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} d"
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(hours * 60))} min"


def _data(one: Option) -> dict[str, Any]:
    return {
        "nodes": one.pool.name,
        "stage": one.stage,
        **dataclasses.asdict(one.cut),
        "bytes": one.need,
        "of": one.pool.memory,
        "fits": one.fits,
        "hours": one.hours,
        "basis": None if not one.hours else one.pool.pace.basis if one.pool.pace and _measured(one) else "assumed",
        "usd": one.usd,
    }


def _nothing(nearest: Option) -> JobError:
    what = f"a rank needs {_size(nearest.need)}, and {nearest.pool.name} has {_size(nearest.pool.memory)}"
    where = f"ZeRO stage {nearest.stage}, micro-batch {nearest.cut.micro}, {nearest.cut.workers} ranks"
    why = f"that is the nearest of all ways, and {SPARE:.0%} are kept free"
    how = "take more workers (from stage 1 on they share the states), training.gradientCheckpointing, bf16, an adapter, or larger GPUs"
    return JobError("GTJ0133", what, where=where, why=why, how=how)
