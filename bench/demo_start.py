"""What `gtj run` of the demo starts: processes, memory and processor time, with workers that are forks and with Ray's own start.

The demo's manifest, cut to STEPS steps. The two take turns (ours first in every other round), each in a fresh folder. Memory is
the proportional set (smaps_rollup: a page that several processes map counts once in all), at its highest; processor seconds are those of
every process that has the run's mark in its environment, Ray's own among them, until the end of the first step and of the whole run.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.first_step import BIN, ROOT
from bench.ratios import ratio

MANIFEST = ROOT / "manifests" / "samples" / "diffusion-shapes.yaml"
MARK, SWITCH = "GENTRAIN_BENCH_START", "GENTRAIN_FORK"
WAYS = {"forks": "1", "ray": "0"}
STEPS = 20


def marked(known: Collection[int]) -> Mapping[int, tuple[float, int]]:
    """Of every process that lives and has the mark, or had it: processor seconds and proportional set in bytes, by process id. A
    worker of Ray's writes its title over its environment."""
    tick, found = os.sysconf("SC_CLK_TCK"), dict[int, tuple[float, int]]()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (int(entry.name) in known or f"{MARK}=".encode() in (entry / "environ").read_bytes()):
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                lines = (entry / "smaps_rollup").read_text().splitlines()
                held = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
                found[int(entry.name)] = ((int(words[11]) + int(words[12])) / tick, 1024 * held)
        except (OSError, StopIteration):  # it has ended, or is about to
            continue
    return found


def one(folder: Path, switch: str) -> dict[str, float]:
    environment = os.environ | {MARK: "1", SWITCH: switch, "OMP_NUM_THREADS": "1"}
    spent, first, most, held = dict[int, float](), 0.0, 0, 0
    timeline = folder / "gentrain-runs" / "diffusion-shapes" / "timeline.json"
    with (folder / "log").open("wb") as log:
        started = time.time()
        command = [BIN / "gtj", "run", "-f", MANIFEST, "--steps", str(STEPS)]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            living = marked(spent)
            spent |= {pid: seconds for pid, (seconds, _) in living.items()}
            most, held = max(most, len(living)), max(held, sum(size for _, size in living.values()))
            if not first and timeline.exists() and "first step" in timeline.read_text():
                first = sum(spent.values())
            time.sleep(0.25)
    if process.returncode:
        raise SystemExit((folder / "log").read_text())
    told = json.loads(timeline.read_text())
    return {
        "processes": most,
        "memory": held,
        "firstProcessor": first,
        "processor": sum(spent.values()),
        "firstSeconds": told["since"] + told["first step"] - started,
    }


def measure(rounds: int) -> list[dict[str, Any]]:
    """{"forks", "ray"} of each round, as `one` tells them; a round before warms the caches."""
    found = []
    for number in range(-1, rounds):
        row = dict[str, Any]()
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory() as name:
                row[way] = one(Path(name), WAYS[way])
        if number >= 0:
            found.append(row)
    return found


def section(result: Mapping[str, Any] | None) -> Sequence[str]:
    """Nothing where it was never run."""
    if result is None:
        return []
    rows, load = result["pairs"], result["machine"]["loadBefore"]
    lines = [
        "## What the demo starts",
        "",
        f"`gtj run` of the demo, cut to {STEPS} steps, two workers (`bench/demo_start.py`): workers that are forks of one process, as they",
        f"are by themselves, and Ray's own start (`{SWITCH}=0`). Memory is the proportional set of all processes at its highest. The",
        f"machine's load was {load:g} on {result['machine']['cores']} cores; {len(rows)} rounds, in which the two take turns.",
        "",
        "| Figure | forks | Ray's own | forks / Ray's own |",
        "| --- | --- | --- | --- |",
    ]
    for name, words, unit in (
        ("processes", "processes at a time, at most", 1),
        ("memory", "memory, MiB", 2**20),
        ("firstProcessor", "processor seconds to the first step", 1),
        ("processor", "processor seconds of the run", 1),
        ("firstSeconds", "seconds to the first step", 1),
    ):
        ours, theirs = (median(row[way][name] for row in rows) / unit for way in WAYS)
        said = ratio([row["forks"][name] / row["ray"][name] for row in rows])
        lines.append(f"| {words} | {ours:,.1f} | {theirs:,.1f} | {said} |".replace(".0 |", " |"))
    return [*lines, ""]
