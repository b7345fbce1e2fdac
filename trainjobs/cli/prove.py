"""gtj prove-resume: whether a run that is killed and resumes ends where an undisturbed one does, to the last bit.

The job is trained twice here, for a few steps, in folders of its own: once undisturbed; once the driver and everything it started are
killed (SIGKILL) between two checkpoints, and started again, as `gtj run` does. Then every metric of every step and every file of every
checkpoint are compared (report/difference.py).
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from trainjobs.api.checkpoints import Every, Keep
from trainjobs.api.follows import followed
from trainjobs.api.job import Job
from trainjobs.cli import driver
from trainjobs.cli.follow import Outcome, checkpoint_step, follow
from trainjobs.cli.manifest import load_job
from trainjobs.cli.output import emit, painted
from trainjobs.cli.prepare import check_workers, cores, prepare, reserved
from trainjobs.cli.run import ignored_fields, local
from trainjobs.cli.screen import Screen, screen
from trainjobs.report.difference import Comparison, Difference, compared
from trainjobs.run.folder import Run
from trainjobs.run.numbers import size

LOOK = 0.002  # seconds between two looks at the run's step: small models make hundreds of steps a second
SHOWN = 8


@click.command("prove-resume", short_help="Kill a run, let it resume, and compare it with an undisturbed one.")
@click.option("-f", "--file", "source", required=True, metavar="FILE", help='Manifest; "-" reads standard input.')
@click.option("--steps", type=click.IntRange(min=2), default=20, show_default=True, help="Steps to train, twice.")
@click.option("--kill-at", type=click.IntRange(min=1), help="Step after which it is killed; default: half of them.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: the manifest's.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Change a field: --set training.seed=1. May be repeated.")
@click.option("--no-ray", is_flag=True, help="One worker in one process, without Ray.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="FOLDER", help="Leave both runs in this new folder.")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="How to print the outcome.")
def command(
    source: str,
    steps: int,
    kill_at: int | None,
    workers: int | None,
    sets: tuple[str, ...],
    no_ray: bool,
    keep: Path | None,
    form: str,
) -> int:
    """Train a manifest twice, for a few steps: undisturbed, and killed (kill -9) in the middle and resumed. Say "bit-exact", or the first
    step and quantity that differ.

    Checkpoints go to the runs' own temporary folders, whatever the manifest says, one shortly before the kill. Ends with 5 when something
    differs.
    """
    at = steps // 2 if kill_at is None else kill_at
    if at >= steps:
        raise click.UsageError(f"--kill-at {at} leaves nothing to resume: it must be below --steps {steps}")
    manifest = load_job(source, [*sets, f"training.steps={steps}"], workers or (1 if no_ray else None), here=True)
    assert manifest.job is not None, "load_job raises for a manifest with problems"
    fixed = workers or (None if no_ray else manifest.job.spec.compute.worker_range[0])  # an elastic group may come back as another
    job = small(local(manifest.job, fixed, no_ray, fresh=False, available=cores()), at)
    check_workers(job, cores())
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise click.UsageError(f"--keep {keep}: the folder is not empty")
    if ignored := ignored_fields(manifest.job):
        click.echo(painted(f"ignored here: {ignored}", dim=True), err=True)
    root = Path(tempfile.mkdtemp(prefix="gtj-prove-")) if keep is None else keep
    one, other = Run(root.resolve() / "undisturbed"), Run(root.resolve() / "killed")
    killer = Killer(other, at)
    view = screen(job.metadata.name)
    try:
        with driver.Signals() as signals:
            ended = train(one, job, manifest.text, not no_ray, view, signals)
            if ended.phase == "Succeeded":
                ended = train(other, job, manifest.text, not no_ray, view, signals, killer)
    finally:
        view.close()
    if ended.phase != "Succeeded":
        click.echo(painted(f"the runs are kept in {root}", dim=True), err=True)
        if ended.error is not None:
            raise ended.error
        return ended.exit_code
    resumed = [row["step"] for row in other.attempts() if row.get("event") == "resumed"]
    result = compared(one, other) if killer.at is not None and resumed else None
    if result is not None:
        proof = Proof(job.metadata.name, steps, killer.at or at, resumed[0], result)
        if form == "json":
            emit({**proof.as_data(), "folder": str(root) if keep else None}, "json")
        else:
            click.echo("\n".join([*proof.lines(), *([f"  {'runs':<12}{keep}"] if keep else [])]))
    if keep is None:
        shutil.rmtree(root, ignore_errors=True)
    if result is None:
        raise click.UsageError(f"{steps} steps were over before the run could be killed: ask for more with --steps")
    return 5 if result.differences else 0


def small(job: Job, at: int) -> Job:
    """The job with its checkpoints in the run folder, one of them well before step `at`, all kept; evaluated twice at most, unless
    something is decided by what evaluations measure: a plateau or a patience is counted in them, and is to be amid its count."""
    checkpoints = job.spec.checkpoints.model_copy(
        update={"uri": None, "every": Every(steps=max(1, 2 * at // 3)), "keep": Keep(last=1000), "resume_from": "latest"}
    )
    half = math.ceil(job.spec.training.steps / 2)
    asked = job.spec.evaluation.every_steps or 0
    evaluation = job.spec.evaluation.model_copy(update={"every_steps": asked if asked and followed(job.spec) else max(half, asked)})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"checkpoints": checkpoints, "evaluation": evaluation})})


def train(run: Run, job: Job, text: bytes, ray: bool, view: Screen, signals: driver.Signals, killer: Killer | None = None) -> Outcome:
    """One run, from its beginning to its end; every step writes its metrics. The first driver is left to the killer."""
    with reserved(run.path):
        prepare(run, job, text, time.time())
        view.say(f"{run.path.name}: {job.spec.training.steps} steps in {run.path}")

        def start() -> driver.Process:
            process = driver.Process(run, [*driver.command(run.path, ray), "--sync-every", "1"])
            if killer is not None and not killer.began:
                killer.begin(process)
            return process

        return follow(run, start, view, driver.Wall(), signals)


class Killer:
    """Kills a driver and all it has started, once the run has made step `step` and holds a checkpoint. `at`: the step at which it did."""

    def __init__(self, run: Run, step: int) -> None:
        self._run, self._step = run, step
        self.began = False
        self.at: int | None = None

    def begin(self, process: driver.Process) -> None:
        self.began = True
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: driver.Process) -> None:
        while process.poll() is None:
            if checkpoint_step(self._run) and self._run.progress().get("step", 0) >= self._step:
                process.kill()
                self.at = self._run.progress().get("step")
                return
            time.sleep(LOOK)


@dataclass(frozen=True)
class Proof:
    """Of `steps` steps, when it was killed after `killed`, and went on from `resumed`."""

    name: str
    steps: int
    killed: int
    resumed: int
    result: Comparison

    def lines(self) -> Iterator[str]:
        result, first = self.result, self.result.first
        verdict = painted("different", "red") if first else painted("bit-exact", "green")
        yield f"{verdict}  {self.name}: {self.steps} steps, killed after step {self.killed}, resumed from step {self.resumed}"
        equal = "" if first else ", equal"
        checkpoints = ", ".join(map(str, result.checkpoints))
        yield f"  {'metrics':<12}{', '.join(result.metrics)}, of {result.steps} steps{equal}"
        yield f"  {'checkpoints':<12}of steps {checkpoints}: {result.files} files, {size(result.size)}, by digest{equal}"
        if first is None:
            return
        yield f"  {'first':<12}step {first.step}, {worded(first)}"
        saved = next((difference.step for difference in result.differences if difference.saved), None)
        names = [difference.quantity for difference in result.differences if difference.saved and difference.step == saved]
        if saved is not None and not first.saved:
            yield f"  {'saved':<12}first not the same at step {saved}: {some(names)}"
        elif len(names) > 1:
            yield f"  {'with it':<12}{some(names[1:])}"
        if first.step <= self.resumed:
            yield f"  {'why':<12}the runs part before anything was resumed: this training is not repeatable even without a kill"
            yield f"  {'how':<12}draw from batch.noise, not from random, numpy or the clock; on a GPU some kernels are not deterministic"
        else:
            yield f"  {'why':<12}until it was resumed, it was equal: something that this training draws on is not in the checkpoint"
            yield f"  {'how':<12}draw from batch.noise, which follows from seed and step, and keep nothing between steps"

    def as_data(self) -> dict[str, Any]:
        result, first = self.result, self.result.first
        return {
            "name": self.name,
            "exact": first is None,
            "steps": self.steps,
            "killedAt": self.killed,
            "resumedFrom": self.resumed,
            "compared": {
                "steps": result.steps,
                "metrics": list(result.metrics),
                "checkpoints": list(result.checkpoints),
                "files": result.files,
                "sizeBytes": result.size,
            },
            "repeatable": first is None or first.step > self.resumed,
            "first": entry(first) if first else None,
            "differences": [entry(difference) for difference in result.differences],
        }


def entry(difference: Difference) -> dict[str, Any]:
    kind = "checkpoint" if difference.saved else "metric"
    undisturbed, resumed = difference.values
    return {"step": difference.step, "kind": kind, "quantity": difference.quantity, "undisturbed": undisturbed, "resumed": resumed}


def worded(difference: Difference) -> str:
    if difference.saved:
        return f"in the checkpoint: {difference.quantity}"
    undisturbed, resumed = difference.values
    return f"{difference.quantity}: {undisturbed} undisturbed, {resumed} resumed"


def some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
