"""How long a step of a job takes on this machine: as its own run has it, or as a probe finds out."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from trainjobs.api.checkpoints import Checkpoints
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.api.problem import listed
from trainjobs.cli import driver
from trainjobs.cli.output import RUNS, record
from trainjobs.cli.prepare import check_workers, cores, prepare
from trainjobs.plan.measured import Pace, enough, pace
from trainjobs.run import preemption
from trainjobs.run.folder import Run
from trainjobs.run.preemption import Notice

STEPS, WARM = 20, 10  # of a probe at least, and those that warm up and do not count
SECONDS = 10.0  # that those which count take at least: the machine's slow moments last longer than ten short steps
LOOK = 0.2  # seconds
MOST = 100_000  # steps: of a millisecond, which no step is, they take longer than the probe
# What a step's length follows from, in the spec: a run of other values says nothing about this one.
SAME = (
    *("training.batch", "training.precision", "training.gradientCheckpointing", "training.compile", "training.tf32"),
    *("compute.gpusPerWorker", "data.images", "deepspeed"),
)


def history(job: Job) -> tuple[Pace | None, str]:
    """What the job's own run measured, in its folder or by its record in the store; and, where there is one that does not count, why."""
    run = Run(RUNS / job.metadata.name)
    where = "history"
    if not run.exists and job.spec.checkpoints.uri is not None:
        try:
            run = record(f"{job.spec.checkpoints.uri.rstrip('/')}/{job.metadata.name}", ())
            where = "history, by its record"
        except JobError:
            return None, ""
    if not run.exists:
        return None, ""
    others = different(job, run)
    if others:
        return None, f"the run in {run.place} is no measure: it has another {listed(others, 'and')}"
    told = run.progress()
    ranks = int(told.get("workers") or 0) * job.spec.compute.each
    found = pace(run.metrics(), run.attempts(), ranks, f"{where} on {told.get('device', '?')}") if ranks else None
    return found, "" if found else f"the run in {run.place} has made too few steps to measure"


def different(job: Job, run: Run) -> list[str]:
    """The parts of a run's job that differ from this one's and on which the length of a step depends."""
    return differing(job, run.spec())


def differing(job: Job, spec: dict[str, Any]) -> list[str]:
    """The same of another job's spec, as it is written out."""
    now: dict[str, Any] = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    # A run of a version that had no such switch ran with it off.
    return [path for path in (job.spec.family, *SAME) if (_at(now, path) or None) != (_at(spec, path) or None)]


def _at(spec: Any, path: str) -> Any:
    for key in path.split("."):
        spec = spec.get(key) if isinstance(spec, dict) else None
    return spec


def probe(job: Job) -> Pace:
    """Train here for twenty steps and ten seconds, the longer of the two, in a folder that is gone afterwards, with the job's own workers
    and as often in step with each other as in the run. JobError: as the training has it."""
    check_workers(job, cores())
    with tempfile.TemporaryDirectory(prefix="gtj-probe-") as name:
        run = Run(Path(name).resolve() / "probe")
        run.path.mkdir()
        short = probed(job)
        prepare(run, short, b"", time.time(), {})
        process = driver.Process(run, driver.command(run.path, short.spec.compute.worker_range[0] > 1))
        try:
            while (ended := process.poll()) is None and not enough(run.metrics(), STEPS, WARM, SECONDS):
                time.sleep(LOOK)
            if ended is None:
                preemption.give(run.path, Notice("stopped", "the probe has seen enough", deadline=time.time()))
            while process.poll() is None:
                time.sleep(LOOK)
        finally:
            if process.poll() is None:  # somebody interrupts the probe
                process.kill()
        if ended:
            raise JobError.from_dict({"what": "the probe did not train", "code": "GTJ0213", **(run.failure() or {})})
        device, ranks = run.progress().get("device", "?"), short.spec.compute.worker_range[0] * short.spec.compute.each
        found = pace(run.metrics(), run.attempts(), ranks, f"probe on {device}", warm=WARM)
    if found is None:
        raise JobError("GTJ0213", "the probe made too few steps to measure", how="leave out --probe")
    return found


def probed(job: Job) -> Job:
    """The job as the probe trains it: more steps than it makes, nothing beside them before the last, nothing kept, nobody told."""
    low = job.spec.compute.worker_range[0]
    compute = job.spec.compute.model_copy(update={"workers": low})
    training = job.spec.training.model_copy(update={"steps": MOST, "tracking": None})
    every = Checkpoints.model_validate({"every": {"steps": MOST}})
    evaluation = job.spec.evaluation.model_copy(update={"every_steps": MOST, "samples": 1})
    update = {"compute": compute, "training": training, "checkpoints": every, "evaluation": evaluation}
    return job.model_copy(update={"spec": job.spec.model_copy(update=update)})
