"""Options and arguments that the cluster verbs share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from trainjobs.cli.cluster.target import Target

F = TypeVar("F", bound=Callable[..., Any])


PLUGIN = "kubectl gtj"


_OPTIONS = (
    click.option("-n", "--namespace", metavar="NS", help="Namespace; default: the context's."),
    click.option("--context", metavar="NAME", help="Context of the kubeconfig; default: the current one."),
    click.option("--kubeconfig", metavar="FILE", type=click.Path(), help="Default: $KUBECONFIG, else ~/.kube/config."),
)


_CLUSTER = click.option("--cluster", "on_cluster", is_flag=True, help="Look at the cluster, not at the runs here; so do -n and --context.")


def cluster_options(command: F) -> F:
    """The options of a verb that acts on a cluster, handed to it as `target`."""

    @functools.wraps(command)
    def collected(namespace: str | None, context: str | None, kubeconfig: str | None, **rest: Any) -> Any:
        return command(target=Target(namespace, context, kubeconfig), **rest)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), collected)  # type: ignore[return-value]


def place_options(command: F) -> F:
    """The same for a verb that reads local runs as well: `target` is None when those are meant."""

    @functools.wraps(command)
    def collected(namespace: str | None, context: str | None, kubeconfig: str | None, on_cluster: bool, **rest: Any) -> Any:
        plugin = click.get_current_context().find_root().info_name == PLUGIN
        asked = on_cluster or plugin or any(value is not None for value in (namespace, context, kubeconfig))
        return command(target=Target(namespace, context, kubeconfig) if asked else None, **rest)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed((*_OPTIONS, _CLUSTER)), collected)  # type: ignore[return-value]


def complete_jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of jobs on the cluster for the shell's TAB; none when it does not answer within two seconds."""
    from trainjobs.cli.cluster.server import connect

    given = {name: context.params.get(name) for name in ("namespace", "context", "kubeconfig")}
    try:
        jobs = connect(Target(**given), timeout=(1, 2)).jobs()
    except Exception:  # whatever it is, a shell's prompt is no place to say it
        return []
    return [name for job in jobs if (name := str(job["metadata"]["name"])).startswith(incomplete)]


def complete_either(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Runs here, or jobs of the cluster when an option asks for it."""
    from trainjobs.cli.output import complete_runs

    asked = any(context.params.get(name) for name in ("namespace", "context", "kubeconfig", "on_cluster"))
    return (complete_jobs if asked else complete_runs)(context, parameter, incomplete)


def job_argument(command: F) -> F:
    """NAME: a job on the cluster."""
    return click.argument("name", shell_complete=complete_jobs)(command)
