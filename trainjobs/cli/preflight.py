"""What a job needs beside machines, looked at in one small pod before machines are asked for: `python -m trainjobs.cli.preflight JOB.json`.

The pod has the head's image, account, environment and volumes, and no accelerator. It says who it is to the store, looks at the base, the
data and the store as the driver does before it trains (workers/preflight.py), and ends with its verdict, one line of JSON, in the file that
the kubelet hands to the operator as the container's termination message: {"passed": true, "found": [...]}, or {"passed": false} and what a
JobError is made of. No torch. What it writes to the store it takes away again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.head.__main__ import frozen, refuse_unshared
from trainjobs.head.metrics_server import bounded
from trainjobs.run import progress
from trainjobs.stores.open import open_bucket
from trainjobs.stores.s3 import S3
from trainjobs.workers.preflight import preflight

VERDICT = Path("/dev/termination-log")
LIMIT = 3800  # bytes: of more than 4096 the kubelet keeps the beginning, which is no JSON
PATIENCE = 6.0  # seconds for a store that does not answer: the operator asks again


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trainjobs.cli.preflight")
    parser.add_argument("job", type=Path, help="the frozen job, JSON")
    parser.add_argument("--verdict", type=Path, default=VERDICT, help="file for the verdict")
    arguments = parser.parse_args()
    try:
        job = frozen(arguments.job)
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
            verdict: dict[str, Any] = {"passed": True, "found": looked(job, Path(folder))}
    except JobError as error:
        verdict = {"passed": False, **error.to_dict()}
    text = bounded(verdict, LIMIT)
    print(text, flush=True)
    with suppress(OSError):  # whoever runs it by hand reads the line above
        arguments.verdict.write_text(text)
    return 0 if verdict["passed"] else 1


def looked(job: Job, run: Path) -> list[str]:
    """What was found, a line each: the data, the store, as whom. JobError for what keeps the job from training."""
    refuse_unshared(job)
    progress.update(run, phase="Preparing")
    preflight(job, run, patience=PATIENCE)
    said = json.loads((run / "progress.json").read_text()).get("data")
    return [*([str(said)] if said else []), *(store(job.spec.checkpoints.uri) if job.spec.checkpoints.uri else ())]


def store(uri: str) -> Iterator[str]:
    """The store, which has just been written and read, and as whom; and where a bucket of S3 is, if that is not where the pod is."""
    if uri.startswith("file://"):
        yield f"{uri} can be written"
        return
    bucket = open_bucket(uri)
    whom = ""
    with suppress(Exception):  # the store has let us in, whoever we are
        whom = bucket.identity()
    yield f"{uri} can be written, read, listed and cleared{f' as {whom}' if whom else ''}"
    here = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    there = bucket.region() if isinstance(bucket, S3) else ""
    if here and there and here != there:
        yield f"the bucket is in {there} and the pods are in {here}: reading and writing across regions is slow, and charged for"


if __name__ == "__main__":
    sys.exit(main())
