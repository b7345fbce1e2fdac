"""The command `gtj`: a table of verbs, each imported when it is used, so that help is instant and only training imports torch."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

import click

from trainjobs.api.errors import JobError

# verb: (module, one line for help). The module's `command` is the click command.
VERBS: dict[str, tuple[str, str]] = {
    "init": ("trainjobs.cli.init", "Write a commented manifest to start from."),
    "validate": ("trainjobs.cli.validate", "Check a manifest: every rule, offline."),
    "data": ("trainjobs.cli.data", "Show what the data is, as the model will see it."),
    "plan": ("trainjobs.cli.plan", "Say what a job needs: memory, time, cost."),
    "prepare": ("trainjobs.cli.preparing", "Prepare data ahead, into shards."),
    "run": ("trainjobs.cli.run", "Train here, on this machine."),
    "submit": ("trainjobs.cli.cluster.submit", "Train on a Kubernetes cluster."),
    "ls": ("trainjobs.cli.ls", "List runs here, or jobs on the cluster."),
    "status": ("trainjobs.cli.status", "Show how a run or a job is doing."),
    "logs": ("trainjobs.cli.logs", "Print the logs of a run or a job."),
    "wait": ("trainjobs.cli.cluster.wait", "Wait until a job on the cluster has ended."),
    "stop": ("trainjobs.cli.cluster.stop", "Suspend a job on the cluster."),
    "resume": ("trainjobs.cli.cluster.resume", "Let a suspended job go on."),
    "rm": ("trainjobs.cli.cluster.rm", "Delete jobs from the cluster."),
    "explain": ("trainjobs.cli.cluster.explain", "Say why a job does not run, or what an error code means."),
    "report": ("trainjobs.cli.report", "Write a run's report: one HTML file."),
    "checkpoints": ("trainjobs.cli.checkpoints", "List and verify checkpoints."),
    "sample": ("trainjobs.cli.sample", "Draw samples from a run, a checkpoint or an export."),
    "prove-resume": ("trainjobs.cli.prove", "Kill a run, let it resume, and compare."),
    "doctor": ("trainjobs.cli.doctor", "Look at this machine: versions, devices, disk."),
    "schema": ("trainjobs.cli.schema", "Print the JSON schema of manifests, for editors."),
    "completion": ("trainjobs.cli.completion", "Print the shell completion script."),
    "version": ("trainjobs.cli.version", "Print versions."),
}


class Verbs(click.Group):
    """A group that knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from trainjobs.api.problem import did_you_mean

            how = did_you_mean(args[0], VERBS) or "gtj --help lists the commands"
            raise click.UsageError(f'there is no command "{args[0]}": {how}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, summary) for verb, (_, summary) in VERBS.items()])


@click.group("gtj", cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gentrain", message="gtj %(version)s")
def gtj() -> None:
    """Train generative models from one manifest: on this machine, or on a Kubernetes cluster.

    \b
    gtj init vae -o job.yaml    write a manifest
    gtj validate -f job.yaml    check it
    gtj run -f job.yaml         train it here
    gtj submit -f job.yaml      train it on a cluster
    """


def main() -> None:
    """Runs the command line and exits: 0 ok, 1 unexpected, 2 usage, 3 invalid manifest, 4 does not fit, 5 job failed, 6 timeout,
    7 not found or forbidden, 130 interrupted. A user's mistake never prints a traceback; a mistake of ours does when GTJ_DEBUG is set."""
    # kubectl runs its plugin by this name, and whoever types `kubectl gtj` means the cluster.
    plugin = os.path.basename(sys.argv[0]).startswith("kubectl-gtj")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold any bytes; stderr escapes them by itself
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(status(sys.argv[1:], "kubectl gtj" if plugin else "gtj"))


def status(arguments: list[str], program: str = "gtj") -> int:
    """The exit status of one invocation, with its errors printed to stderr. `program` is what the user typed before the arguments."""
    try:
        result: Any = gtj.main(arguments, prog_name=program, standalone_mode=False)
    except JobError as error:
        from trainjobs.cli.diagnostics import plain

        click.echo(plain(error), err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away (gtj ls | head): not an error, and nothing may be flushed there any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("GTJ_DEBUG"):
            raise
        click.echo(f"unexpected {type(error).__name__}: {error}\n  how:   this is a defect of gtj; GTJ_DEBUG=1 shows where", err=True)
        return 1
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
