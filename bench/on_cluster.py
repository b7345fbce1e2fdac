"""What the end-to-end tests measured on a cluster, as a part of docs/benchmarks.md: `make e2e` keeps it in bench/results/e2e."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEAD = """## On a cluster

`make e2e`: jobs with two workers in pods of their own and a checkpoint every {every} steps, through the real KubeRay to an S3 server in the
cluster. Killed is kill -9 of every process in the pod. Lost are steps that the job had told of, twice a second, and that are trained
again: at most an interval, and what one upload takes. Workers whose head is gone train and commit until their pods have ended, for
`gracePeriodSeconds` less ten seconds; the next attempt waits for that.
"""
MANY = (("recovery-worker", "a worker's pod is killed"), ("recovery-head", "the head's pod is killed: another attempt"))
ONCE = (("node-drained", "the workers' node is drained"), ("hung-rank", "a worker hangs, `stallTimeout` 30 s"))


def section(folder: Path) -> list[str]:
    """Recoveries, and where the seconds of one job go. What was never run is left out."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    every = next((found[name]["checkpointEvery"] for name, _ in MANY if name in found), None)
    if every is None:
        return ["## On a cluster", "", "Not measured.", ""]
    lines = [*HEAD.format(every=every).splitlines(), "", "| What happens | seconds to the next step | steps lost |", "| --- | --- | --- |"]
    for name, words in MANY:
        if one := found.get(name):
            times = f"{one['p50']:.1f} (p50), {one['p95']:.1f} (p95)"
            lost = f"at most {one['stepsLostAtMost']}" if one["stepsLostAtMost"] else "0"
            lines.append(f"| {words}, {len(one['kills'])} times | {times} | {lost} |")
    for name, words in ONCE:
        if one := found.get(name):
            lines.append(f"| {words} | {one['seconds']:.1f} | {one['stepsLost']} |")
    if one := found.get("operator-killed"):
        words = f"training goes on; another one leads after {one['leaderMovedSeconds']:.1f} s"
        lines.append(f"| the operator's leader is killed | {words} | {one['stepsLost']} |")
    if one := found.get("elastic"):
        words = f"{one['killedToFewerSeconds']:.1f} with one worker; {one['roomToMoreSeconds']:.1f} from room to two"
        lines.append(f"| one of an elastic group's two pods is killed, no room for another | {words} | |")
    return [*lines, "", *timeline(found.get("timeline")), *taken(found)]


def timeline(one: dict[str, Any] | None) -> list[str]:
    """From `gtj submit` to Succeeded, and how much of it is neither scheduling, pulling nor starting Ray."""
    if one is None:
        return []
    seconds, ours = one["seconds"], one["ours"]
    lines = ["Where the seconds of one job of 60 steps go, images being there:", "", "| From, to | seconds |", "| --- | --- |"]
    lines += [f"| {name} | {value:.2f} |" for name, value in seconds.items()]
    parts = ", ".join(f"{name} {value:.2f}" for name, value in ours.items() if name != "sum")
    return [*lines, "", f"Ours of that, before the first step: {ours['sum']:.2f} s ({parts}). Goal: 2 s.", ""]


def taken(found: dict[str, Any]) -> list[str]:
    one = next(iter(found.values()))["machine"]
    days = sorted({value["when"][:10] for value in found.values()})
    return [f"Taken on one node of {one['cores']} cores and {one['memoryGiB']} GiB, {' and '.join(days)}.", ""]
