"""How long a job stands still when all of a pod is killed (SIGKILL), and how many steps it repeats: some of each, for bench/results/e2e."""

from __future__ import annotations

import math
import os
import time

from tests.e2e.cluster import Object
from tests.e2e.jobs import Team, manifest
from tests.e2e.sight import record
from tests.e2e.test_faults import EVERY, again

KILLS = int(os.environ.get("GENTRAIN_E2E_KILLS", "2"))  # ten, for figures worth a percentile
HEADS = 2  # kills of one job's head: the time between attempts doubles


def test_worker_killed_again_and_again(team: Team) -> None:
    team.submit(manifest("workers", steps=10**6, every=EVERY))
    measured = []
    for number in range(KILLS):
        measured.append(killed(team, "workers", "worker", number))
    assert (team.status("workers")["attempts"], team.status("workers").get("restarts", {})) == (1, {})
    kept("recovery-worker", measured)


def test_head_killed_again_and_again(team: Team) -> None:
    measured = []
    for number in range(KILLS):
        name = f"heads-{number // HEADS}"
        if number % HEADS == 0:
            team.kubectl("delete", "gtj", "--all")
            team.submit(manifest(name, steps=10**6, every=EVERY))
        measured.append(killed(team, name, "head", number))
        assert team.status(name)["restarts"] == {"infrastructure": number % HEADS + 1}, "no fault of the training code"
    kept("recovery-head", measured)


def killed(team: Team, name: str, kind: str, number: int) -> Object:
    """Crash a pod once two checkpoints' worth of steps were gained since the last time; how long until the next step, and what was lost:
    the steps after the one that it went on from, to the last one that it had told of (it tells of them twice a second)."""
    since = (team.progress(name).get("step") or 0) if number else 0
    team.reach(name, since + 2 * EVERY)
    pods = team.pods(name, kind)
    before, began = team.progress(name), time.time()
    team.crash(pods[number % len(pods)])
    seconds, after = again(team, name, before, began)
    lost = team.lost(name, after["lastSeen"], began)
    return {"seconds": round(seconds, 1), "lastStep": after["lastSeen"], "stepsLost": lost, "reachedAfter": after["step"]}


def kept(name: str, measured: list[Object]) -> None:
    seconds = sorted(one["seconds"] for one in measured)
    lost = [one["stepsLost"] for one in measured]
    figures = {"p50": quantile(seconds, 0.5), "p95": quantile(seconds, 0.95), "stepsLostAtMost": max(lost), "checkpointEvery": EVERY}
    record(name, {**figures, "kills": measured})
    # What is lost is what came after the last checkpoint, and the one that was just on its way to the bucket.
    assert max(lost) <= 2 * EVERY


def quantile(values: list[float], share: float) -> float:
    """The nearest rank."""
    return values[math.ceil(share * len(values)) - 1]
