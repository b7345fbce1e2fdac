"""A thousand generated reports and a thousand generated refusals: whatever a pod or the server says, the status can be written."""

from __future__ import annotations

import datetime
import json
import os
import random
from typing import Any

import pytest

from gentrain_operator.decide import Observed, decide
from gentrain_operator.kube.apply import write_status
from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import JOBS, RAYJOBS, Object
from gentrain_operator.refusals import AGAIN, refusal
from tests.cluster.at_work import IMAGE, manifest
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("GENTRAIN_EXAMPLES", "250"))  # a thousand, when somebody asks for them
SEED = int(os.environ.get("GENTRAIN_SEED", "12"))
NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
FIELDS = (
    *("step", "samples", "etaSeconds", "updatedAt", "metrics", "throughput", "checkpoint", "failure", "stage", "workers", "phase"),
    *("message", "checkpointFailure", "totalSteps", "startedAt", "job", "\ud800", "plan"),
)
TEXTS = (
    "",
    "x",
    "\x00\x1b[31m",
    "\ud800\udfff",
    "é" * 5000,
    "a\u202eb\u200b",
    " ",
    "\n\r\t",
    "😀" * 400,
    "null",
    "loss",
    "loss\x00",
    " loss ",
    "nan",
)
NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63),
    10**400,
    1e308,
    -0.0,
    0.1,
    4e9,
    253402300800,
    float("nan"),
    float("inf"),
    -float("inf"),
)


def junk(dice: random.Random, depth: int = 3) -> Any:
    kind = dice.randrange(7 if depth else 5)
    if kind == 0:
        return dice.choice(NUMBERS)
    if kind == 1:
        return dice.choice(TEXTS)
    if kind == 2:
        return dice.choice((None, True, False))
    if kind == 3:
        return "".join(chr(dice.choice((dice.randrange(0x110000), dice.randrange(128)))) for _ in range(dice.randrange(40)))
    if kind == 4:
        return dice.randrange(-100, 200)
    if kind == 5:
        return [junk(dice, depth - 1) for _ in range(dice.randrange(5))]
    return {dice.choice((*FIELDS, *TEXTS)): junk(dice, depth - 1) for _ in range(dice.randrange(6))}


def report(dice: random.Random) -> Object:
    out: Object = {name: junk(dice) for name in FIELDS if dice.random() < 0.6}
    if dice.random() < 0.6:  # names that become equal
        stem = dice.choice(TEXTS)[:80] or "m"
        names = [stem + dice.choice(("", " ", "\x00", "\n", "y" * 70 + str(n))) for n in range(dice.randrange(80))]
        out["metrics"] = {name: dice.choice(NUMBERS) for name in names}
    if dice.random() < 0.4:
        out["throughput"] = {"value": dice.choice(NUMBERS), "unit": dice.choice(TEXTS)}
    if dice.random() < 0.4:
        out["checkpoint"] = {
            "step": dice.choice(NUMBERS),
            "uri": dice.choice(TEXTS),
            "sizeBytes": dice.choice(NUMBERS),
            "committedAt": junk(dice),
        }
    if dice.random() < 0.4:
        out["failure"] = {**{name: junk(dice) for name in ("what", "where", "why", "how", "rank", "step", "logTail")}, "code": "GTJ0206"}
    # As it comes over the wire: no key twice, NaN as Python writes it.
    read: Object = json.loads(json.dumps(out))
    return read


@pytest.fixture
def client(installed: ControlPlane) -> Client:
    return Client(from_kubeconfig(str(installed.kubeconfig)))


def child(status: Object) -> Object:
    metadata = {"name": "job-a1", "creationTimestamp": "2026-11-28T11:00:00Z", "uid": "r"}
    return {"metadata": metadata, "spec": {"suspend": False}, "status": {"startTime": "2026-11-28T11:00:00Z", **status}}


RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterStatus": {"readyWorkerReplicas": 2}}
FAILED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "x"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


@pytest.mark.parametrize("elastic", [False, True])
def test_a_status_can_be_written_whatever_is_reported(client: Client, namespace: str, elastic: bool) -> None:
    dice = random.Random(f"{SEED} {elastic}")
    made = client.create(JOBS, namespace, manifest("job", compute={"gpusPerWorker": 0, "workers": "1-8" if elastic else 2}))
    job = made
    written = 0
    for number in range(COUNT // 2):
        said = report(dice)
        for status in (RUNNING, FAILED, DONE):
            looked = {**made, "metadata": job["metadata"], "status": {"attempts": 1}}
            decision = decide(Observed(looked, (child(status),), {}, report=said), NOW + datetime.timedelta(minutes=number), IMAGE)
            assert decision.status is not None
            try:
                job = write_status(client, JOBS, looked, decision.status) or job
            except ApiError as error:
                pytest.fail(f"report {number} of seed {SEED} {elastic}, {status['jobDeploymentStatus']}: {error}\n{said!r}")
            written += 1
    assert written == 3 * (COUNT // 2)


def test_a_refusal_is_written_whatever_it_says_and_no_job_is_stuck(client: Client, namespace: str) -> None:
    dice = random.Random(SEED)
    made = client.create(JOBS, namespace, manifest("job"))
    job, told = made, 0
    begun = (
        "",
        "exceeded quota: ",
        "denied the request: ",
        "failed calling webhook ",
        "cannot create resource ",
        "because it is being terminated",
    )
    for number in range(COUNT):
        error = ApiError(
            dice.choice((0, 400, 403, 404, 409, 413, 422, 429, 500, 503)),
            "X",
            f"{dice.choice(begun)}{junk(dice, 0)}" * dice.choice((1, 99)),
        )
        found = refusal(error, dice.choice(("ConfigMap", "RayJob")))
        if found is None:
            continue
        now = NOW + datetime.timedelta(seconds=7 * number)
        decision = decide(Observed(job, refused=found, profiles={}), now, IMAGE)
        assert decision.status is not None
        assert decision.create == ()
        assert decision.again is not None
        assert AGAIN[0] <= decision.again <= AGAIN[1]
        job = write_status(client, JOBS, job, decision.status) or job
        shown = {one["reason"]: one for one in job["status"]["conditions"]}
        assert shown[found.reason]["status"] == "False"
        told += 1
        after = decide(Observed(job, profiles={}), now, IMAGE)  # the cause is gone
        assert [one["kind"] for one in after.create] == ["ConfigMap", RAYJOBS.kind]
    assert told > COUNT // 3
