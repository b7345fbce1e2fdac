"""gtj validate."""

from __future__ import annotations

import json

import click

from trainjobs.api.job import Job
from trainjobs.api.problem import listed
from trainjobs.api.shape import dotted
from trainjobs.cli.diagnostics import as_data, rendered
from trainjobs.cli.manifest import Found, Manifest, load


@click.command("validate", short_help="Check a manifest: every rule, offline.")
@click.option("-f", "--file", "sources", multiple=True, metavar="FILE", help='Manifest; "-" reads standard input. May be repeated.')
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Change a field first, as gtj run does: --set training.steps=10.")
@click.option("--workers", type=click.IntRange(min=1), help="Check for this number of workers instead of the manifest's.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print what was found.")
@click.argument("more", nargs=-1, metavar="[FILE]...")
def command(sources: tuple[str, ...], sets: tuple[str, ...], workers: int | None, output: str, more: tuple[str, ...]) -> int:
    """Check manifests against every rule, without a network. Exit status 0 when all is well, also with notes, 3 when not."""
    files = (*sources, *more)
    if not files:
        raise click.UsageError("which manifest? gtj validate -f job.yaml")
    loaded = [load(source, sets, workers, here=True) for source in files]
    manifests = [manifest for one in loaded for manifest in one.manifests]
    found = [problem for manifest in manifests for problem in manifest.found]
    told = [note for manifest in manifests for note in manifest.notes]
    if output == "json":
        data = {"valid": not found, "problems": [as_data(problem) for problem in found]}
        click.echo(json.dumps({**data, **({"notes": [as_data(one) for one in told]} if told else {})}, indent=2))
        return 3 if found else 0
    for note in (note for one in loaded for note in one.notes):
        click.echo(note, err=True)
    for manifest in manifests:
        for path, uri in manifest.resolved:
            click.echo(f"{manifest.source}: {dotted(path)} is {uri} here; a cluster refuses a relative path", err=True)
        if manifest.job is not None:
            click.echo(f"{manifest.source}: ok: {summary(manifest.job)}")
            for line in corrections(manifest.job):
                click.echo(f"  {line}")
    if told:
        click.echo(rendered(told), err=True)
    if found:
        click.echo(f"{rendered(found)}\n\n{count(found, manifests)}", err=True)
    return 3 if found else 0


def count(found: list[Found], manifests: list[Manifest]) -> str:
    number = f"{len(found)} problem{'s' if len(found) > 1 else ''}"
    bad = sum(1 for manifest in manifests if manifest.found)
    return number if len(manifests) == 1 else f"{number} in {bad} of {len(manifests)} jobs"


def corrections(job: Job) -> list[str]:
    """By network whose optimizer is not as the manifest has it, what it is instead, and why."""
    found = []
    for network, interval in (job.spec.gan.lazy if job.spec.gan else {}).items():
        used = job.spec.optimizer(network)
        betas = ", ".join(f"{beta:.6g}" for beta in used.betas)
        settings = f"{used.name} with learningRate {used.learning_rate:.6g} and betas [{betas}]"
        what = "R1" if network == "discriminator" else "path length"
        found.append(f"{network}: {settings}, for one more step of {what} after every {interval} of its own")
    return found


def summary(job: Job) -> str:
    """What the job is, on one line: vae-digits: vae on builtin:digits, 2000 steps of 64, 2 workers, ZeRO stage 2."""
    spec = job.spec
    low, high = spec.compute.worker_range
    sizes = spec.training.batch.sizes(low, high, spec.compute.each)
    workers = f"{low} worker{'s' if low > 1 else ''}" if low == high else f"{low} to {high} workers"
    gpus = spec.compute.gpus_per_worker
    device = "CPU" if gpus == 0 else "1 GPU each" if gpus == 1 else f"{gpus} GPUs each"
    if low < high and sizes:
        device = f"{listed(sizes[:16])}; {device}"
    parts = [
        f"{spec.family} on {spec.data.uri}",
        f"{spec.training.steps} steps of {spec.training.batch.global_}",
        f"{workers} ({device})",
        f"ZeRO stage {spec.deepspeed.stage}",
    ]
    return f"{job.metadata.name}: {', '.join(parts)}"
