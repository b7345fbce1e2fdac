"""The trainer on a cluster: `python -m trainjobs.head JOB.json --port 8090`, the command of a RayJob, in its head pod.

This process stays light. It starts the driver (workers/launch.py) as another one, serves what the run tells (metrics_server.py), and
outlives the driver whatever becomes of it: the last line of its output says why the training failed, as an object that the operator
reads. SIGTERM asks for a checkpoint and ends; what drained the node, or suspended the job, is for the operator to know.

The workers are pods of their own. What all of them must reach is a checkpoint store; docs/concepts/cluster-run.md draws the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import IO, Any

from pydantic import ValidationError

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.api.uris import file_path
from trainjobs.head.metrics_server import MetricsServer, Report, bounded, whole
from trainjobs.head.recording import recorded
from trainjobs.run import failures, preemption, progress

RECORD = "gentrain-failure: "  # how the last line begins; the operator's diagnose.py looks for it
RECORD_LIMIT = 8 * 1024  # bytes; of the output of a failed job, Ray and KubeRay hand on the last 20,000 characters
STOPPED = 130
LAST_LINES = 2.0  # seconds for the last lines of a driver that has ended
LOG_LIMIT = 256 * 2**20  # bytes of the driver's output that are kept in the run folder
LAST_WORDS = 5.0  # seconds that a success may take longer, so that its last checkpoint stands in the job's status


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trainjobs.head")
    parser.add_argument("job", type=Path, help="the frozen job, JSON")
    parser.add_argument("--port", type=int, default=8090, help="of /progress and /metrics; 0 takes a free one")
    parser.add_argument("--run-dir", type=Path, help="run folder; default: one in the folder for temporary files")
    parser.add_argument("--linger", type=float, default=0.0, help="seconds to serve the end on /progress until somebody has read it")
    arguments = parser.parse_args()
    # Taken away before any of the user's code starts: what that prints is in the same log.
    nonce = os.environ.pop("GENTRAIN_NONCE", "")
    try:
        job = frozen(arguments.job)
        run = prepared(arguments.run_dir or Path(tempfile.gettempdir()) / f"gentrain-{job.metadata.uid or job.metadata.name}", job)
        labels = {"namespace": job.metadata.namespace or "", "job": job.metadata.name}
        with MetricsServer(Report(run, identity(job)).read, labels, arguments.port) as server:
            print(f"run folder {run}, /progress and /metrics on port {server.port}", flush=True)
            with recorded(job, run, lambda words: print(words, flush=True)):
                code, failure = refused(job, run) or driven(run)
            if code != STOPPED:
                # A failure that comes before all pods are ready reaches nobody otherwise: KubeRay then waits for the head for ever. And the
                # last checkpoint is known from here only.
                server.told.wait(arguments.linger if code else min(arguments.linger, LAST_WORDS))
    except (JobError, OSError) as error:
        refusal = error if isinstance(error, JobError) else JobError("GTJ0114", "nothing can be prepared in this pod", why=str(error))
        code, failure = refusal.exit_code, refusal.to_dict()
    if code:
        print(RECORD + bounded({"nonce": nonce, **failure} if nonce else failure, RECORD_LIMIT), flush=True)
    return code


def frozen(path: Path) -> Job:
    """The job to train. JobError GTJ0105: the operator validated it, so this trainer is of another version."""
    try:
        return Job.model_validate_json(path.read_bytes())
    except OSError as error:
        raise JobError("GTJ0118", "there is no job to train", where=str(path), why=error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        how = "use a trainer image of the operator's version: spec.pod.image, the profile's image, or the chart's"
        raise JobError("GTJ0105", "this trainer does not read the job", where=str(path), why=why, how=how) from error


def identity(job: Job) -> dict[str, Any]:
    """Of which job and attempt this pod reports; {} outside a cluster, where nobody could mistake it."""
    attempt = os.environ.get("GENTRAIN_ATTEMPT", "")
    return {"uid": job.metadata.uid, "attempt": int(attempt)} if job.metadata.uid and attempt.isdigit() else {}


def refused(job: Job, run: Path) -> tuple[int, dict[str, Any]] | None:
    """What `driven` returns, for a job that cannot run here at all; else None."""
    try:
        refuse_unshared(job)
    except JobError as error:
        failures.publish(run, error, {})
        return error.exit_code, whole(run / "failure.json") or error.to_dict()
    return None


def refuse_unshared(job: Job) -> None:
    """GTJ0107 for a checkpoint store that the other workers' pods would not see: below no volume that all of them mount."""
    uri, workers = job.spec.checkpoints.uri, job.spec.compute.worker_range[1]
    if workers == 1 or (uri is not None and not uri.startswith("file://")):
        return
    if uri is not None:
        path = PurePosixPath(file_path(uri))
        if any(path.is_relative_to(volume.mount_path) for volume in job.spec.pod.volumes if not volume.read_only):
            return
    raise JobError(
        "GTJ0107",
        f"checkpoints of {workers} workers need a place that all of them reach",
        where="spec.checkpoints.uri",
        why=f"{uri} is below no volume of spec.pod.volumes" if uri else "without it each worker would keep its part in its own pod",
        how="name a bucket (s3://, gs://, az://), or mount a claim that many pods may write (ReadWriteMany) by spec.pod.volumes and name a "
        "file:// URI below its mountPath",
    )


def prepared(run: Path, job: Job) -> Path:
    """The run folder, with the job in it and nothing that an earlier driver said about its end."""
    run.mkdir(parents=True, exist_ok=True)
    run = run.resolve()
    for name in (preemption.STOP, preemption.REPLACE, "failure.json"):
        (run / name).unlink(missing_ok=True)
    progress.replace(run / "job.json", json.dumps(job.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2) + "\n")
    progress.update(run, startedAt=time.time(), phase="Preparing", message="starting the trainer", totalSteps=job.spec.training.steps)
    return run


def copied(source: IO[bytes], log: Path) -> None:
    """Hand the driver's output on, and keep it in the run folder as far as there is room."""
    log.parent.mkdir(exist_ok=True)
    room = LOG_LIMIT
    with log.open("ab") as file:
        while data := source.read1(2**16):  # type: ignore[attr-defined]
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            if 0 < room <= len(data):
                data, room = b"\nthe rest is in the pod's log alone\n", 0
            elif room:
                room -= len(data)
            else:
                continue
            with suppress(OSError):  # a full disk
                file.write(data)
                file.flush()


def driven(run: Path) -> tuple[int, dict[str, Any]]:
    """Run the driver to its end. Its exit status, and why, unless that is 0."""
    asked = False
    driver: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if driver is not None:
            driver.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Without the variable, the driver would start a cluster of its own.
    environment = {"RAY_ADDRESS": "auto", **os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "trainjobs.workers.launch", str(run)]
    driver = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    assert driver.stdout is not None
    copying = threading.Thread(target=copied, args=(driver.stdout, run / "logs" / "driver.log"), name="driver's output", daemon=True)
    copying.start()
    if asked:
        driver.send_signal(signal.SIGTERM)
    code = driver.wait()
    copying.join(LAST_LINES)  # processes that outlive the driver may hold its output open
    failure = whole(run / "failure.json")
    if code == 0 or failure:
        return code, failure
    error = ended(code, asked)
    if asked:
        return STOPPED, {**error.to_dict(), "step": whole(run / "progress.json").get("step")}
    failures.publish(run, error, {})
    return error.exit_code, whole(run / "failure.json") or error.to_dict()


def ended(code: int, asked: bool) -> JobError:
    """A driver that ended without saying why."""
    if asked:
        how = "the next attempt goes on from the last checkpoint"
        return JobError("GTJ0213", "the training was asked to stop", why="SIGTERM reached the head pod", how=how)
    why = f"it was killed by signal {-code}" if code < 0 else f"its exit status was {code}"
    how = "signal 9 without a word is usually the kernel, out of memory: give the head more memory in the profile" if code == -9 else ""
    return JobError("GTJ0213", "the driver was lost", why=why, how=how)


if __name__ == "__main__":
    sys.exit(main())
