"""gtj submit: hands a manifest to the cluster.

Creates, never replaces: submitting a manifest twice changes nothing, and another spec under the same name is an error that says what
differs. Unlike `kubectl apply` it checks every rule first, with line and column, and a retry of a script cannot alter a running job.
"""

from __future__ import annotations

from typing import Any

import click

from gentrain_operator.kube.resource import Object
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.api.problem import listed
from trainjobs.cli.cluster.options import cluster_options
from trainjobs.cli.cluster.server import Cluster, connect
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.wait import period, waited
from trainjobs.cli.diagnostics import rendered
from trainjobs.cli.foreseen import annotated
from trainjobs.cli.manifest import load_job
from trainjobs.cli.output import emit, format_option


@click.command("submit", short_help="Train a manifest on the cluster.")
@click.option("-f", "--file", "source", required=True, metavar="FILE", help='Manifest; "-" reads standard input.')
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Change a field first: --set training.steps=10.")
@click.option("-w", "--wait", "--follow", "wait", is_flag=True, help="Stay until it has ended; the exit status is then the job's.")
@click.option("--timeout", metavar="DURATION", help="With --wait: give up after 45s, 10m, 1h30m ...")
@click.option("--dry-run", is_flag=True, help="Have the cluster check it; create nothing.")
@cluster_options
@format_option
def command(source: str, sets: tuple[str, ...], wait: bool, timeout: str | None, dry_run: bool, target: Target, form: str) -> int:
    """Train a manifest on the cluster.

    Creates the job; submitting the same manifest again changes nothing. The namespace is that of -n, of the manifest, or of the context.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    if wait and dry_run:
        raise click.UsageError("--dry-run creates nothing to wait for")
    limit = period(timeout) if timeout is not None else None
    manifest = load_job(source, sets)
    assert manifest.job is not None, "a manifest without problems has a job"
    if manifest.notes:
        click.echo(rendered(manifest.notes), err=True)
    cluster = connect(target)
    choose_namespace(cluster, manifest.job, source)
    created = cluster.create(body(annotated(manifest.job)), dry_run=dry_run)
    job = created or unchanged(cluster, manifest.job)
    say = click.echo if form == "table" else (lambda text: click.echo(text, err=True))
    where = f"in namespace {cluster.namespace} ({cluster.where})"
    name = manifest.job.metadata.name
    if dry_run:
        say(f"{name} would be {'created' if created else 'unchanged'} {where}")
        return 0
    say(f"{'created' if created else 'unchanged'} {name} {where}")
    if wait:
        return waited(cluster, job, "Finished", limit, form)
    if form != "table":
        emit({"name": name, "namespace": cluster.namespace, "uid": job["metadata"]["uid"], "created": created is not None}, form)
        return 0
    for word, verb, more in (("watch", "status", ("-w",)), ("logs", "logs", ("-f",)), ("why", "explain", ())):
        say(f"  {word + ':':<7}{cluster.command(verb, name, *more)}")
    return 0


def choose_namespace(cluster: Cluster, job: Job, source: str) -> None:
    """The manifest's namespace, unless -n says another: then somebody is wrong. GTJ0108."""
    written = job.metadata.namespace
    if written is None:
        return
    if cluster.target.namespace not in (None, written):
        raise JobError(
            "GTJ0108",
            f"the manifest is for namespace {written}, and -n says {cluster.target.namespace}",
            where=f"{source}: metadata.namespace",
            how="leave out one of them",
        )
    cluster.namespace = written


def body(job: Job) -> Object:
    """The manifest as it was written: defaults are the server's business, so that `kubectl get -o yaml` shows who set what."""
    dumped: Object = job.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    metadata = {key: value for key, value in dumped["metadata"].items() if key not in ("uid", "namespace")}
    return {**dumped, "metadata": metadata}


def unchanged(cluster: Cluster, job: Job) -> Object:
    """The job that has the name already, when it is the same one. GTJ0119 with what differs when it is not."""
    there = cluster.job(job.metadata.name)
    name = job.metadata.name
    different = differences(there, job)
    if not different:
        return there
    if different == ["suspend: true there, false here"]:
        how = f"go on with it: {cluster.command('resume', name)}"
        raise JobError("GTJ0119", f"job {name} is there and stopped", where=cluster.where, how=how)
    more = f" and {len(different) - 3} more" if len(different) > 3 else ""
    how = f"submit it under another metadata.name, or remove the old one first: {cluster.command('rm', name)}"
    raise JobError("GTJ0119", f"job {name} exists with another spec", where=cluster.where, why="; ".join(different[:3]) + more, how=how)


def differences(there: Object, job: Job) -> list[str]:
    """Fields of the spec that differ, defaults written out on both sides: "training.steps: 100 there, 200 here"."""
    from pydantic import ValidationError

    content = {**{key: there.get(key) for key in ("apiVersion", "kind", "spec")}, "metadata": {"name": there["metadata"]["name"]}}
    try:
        earlier = Job.model_validate(content, extra="ignore")
    except ValidationError as error:
        return [
            f"the one there is of another version: {listed(sorted({'.'.join(map(str, one['loc'])) for one in error.errors()})[:3], 'and')}"
        ]
    old, new = dict(flat(dumped(earlier))), dict(flat(dumped(job)))
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [f"{name}: {shown(old.get(name))} there, {shown(new.get(name))} here" for name in names]


def dumped(job: Job) -> dict[str, Any]:
    return job.spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def flat(value: dict[str, Any]) -> list[tuple[str, Any]]:
    from trainjobs.cli.prepare import flatten

    return list(flatten(value))


def shown(value: Any) -> str:
    import json

    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
