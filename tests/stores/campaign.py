"""The fault campaign: the commit machine, with faults at single requests, in memory and on every server.

python -m tests.stores.campaign [--runs 1000] [--steps 8] [--seed N] [memory moto versitygw fake-gcs-server azurite]

Writes bench/results/campaign/places.json, which keeps the rows of places that were not run this time, and docs/campaign.md from it. Runs
come in batches, each on a server that was started for it, with the next seed; a row is written after each. A run is one sequence of
actions of two processes with up to three faults in each, ended by a new attempt that resumes, saves and cleans up. What is counted as a
failure is an assertion of tests/checkpoints/second_reader.py, or of the machine: the campaign stops there and shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoints"))

from commit_machine import LENIENT
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stores.places import FAULTS, BucketMachine, memory_machine, server_machine
from tests.stores.servers import service, why_not

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "bench" / "results" / "campaign" / "places.json", ROOT / "docs" / "campaign.md"
BATCH = 250  # runs on one server: what it keeps of those before makes it slow, and Azurite, in the end, silent for minutes
# The least part that each takes: S3 wants 5 MiB of all parts but the last. moto can be told otherwise (servers.py), versitygw cannot.
PARTS = {"memory": 64, "moto": 64, "versitygw": 5 << 20, "fake-gcs-server": 64, "azurite": 64}
WHAT = {
    "memory": "a bucket in memory; looked at after every change",
    "moto": "S3: moto's server",
    "versitygw": "S3: versitygw",
    "fake-gcs-server": "Google Cloud Storage: fake-gcs-server",
    "azurite": "Azure Blob Storage: Azurite",
}

HEAD = """# The fault campaign

Made by `make campaign` from `bench/results/campaign/places.json`; do not edit.

Two processes share one run's checkpoints and begin attempts, save (with the files of ZeRO stages 0 to 3, on one or two ranks), retain and
resume in any order; files are spoilt; and up to three requests of each action meet a fault. In the end a new attempt resumes, saves and
cleans up. A second reader, which shares no code with the writer, checks the [guarantees](concepts/checkpoint-format.md): in memory after
every change, on a server after every action.

A run that finds a torn, a lost or a resurrected commit ends the campaign, which then writes no row: every run counted here held. A
campaign is a thousand runs; where fewer are counted, it was a shorter one.

| Place | runs | actions, at most | faults | first seed, batches |
| --- | --- | --- | --- | --- |"""
FOOT = """
*Late*: the request was given up and arrives two requests later. *Away*: no answer until the action has failed. *Crash*: the process is
gone before or after the request. *Other*: the second process acts in between. What happens on the wire itself (429, 500 and 503, slow
and half-open connections, answers that break off) is in `tests/stores/test_store_wire.py`.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="campaign")
    parser.add_argument("places", nargs="*", default=list(PARTS))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    told = parser.parse_args()
    os.environ.setdefault("GENTRAIN_STORES", "all")
    for place in told.places:
        if place != "memory" and (why := why_not(place)):
            print(f"{place}: left out: {why}", flush=True)
            continue
        print(f"{place}: {told.runs} runs of up to {told.steps} actions, seed {told.seed} ...", flush=True)
        row: dict[str, Any] = {}
        while (done := row.get("runs", 0)) < told.runs:
            row = added(row, run(place, min(BATCH, told.runs - done), told.steps, told.seed + row.get("batches", 0)))
            print(f"{place}: {row['runs']} runs, {sum(row['faults'].values())} faults, 0 failures, {row['seconds']} s", flush=True)
            rows: dict[str, Any] = json.loads(RESULTS.read_text())["places"] if RESULTS.exists() else {}
            rows[place] = row
            RESULTS.write_text(json.dumps({"places": {name: rows[name] for name in PARTS if name in rows}}, indent=1) + "\n")
            PAGE.write_text(page(rows))
    return 0


def added(row: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    """The row of a place after one more batch, whose seed is the next."""
    if not row:
        return batch
    faults = {fault: count + row["faults"].get(fault, 0) for fault, count in batch["faults"].items()}
    sums = {name: row[name] + batch[name] for name in ("runs", "batches", "seconds")}
    return {**row, **sums, "faults": faults}


def run(place: str, runs: int, steps: int, number: int) -> dict[str, Any]:
    """The row of one place. AssertionError, with the run that shows it, when an invariant breaks."""
    if place == "memory":
        return measured(memory_machine(), runs, steps, number)
    with tempfile.TemporaryDirectory() as folder, service(place, Path(folder)) as running:
        os.environ |= running.environ()
        return measured(server_machine(running, PARTS[place]), runs, steps, number)


def measured(machine: type[BucketMachine], runs: int, steps: int, number: int) -> dict[str, Any]:
    chosen = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=LENIENT,
        database=None,
        phases=(Phase.generate, Phase.shrink),
    )
    began = time.monotonic()
    run_state_machine_as_test(seed(number)(machine), settings=chosen)
    return {
        "runs": machine.runs,
        "batches": 1,
        "steps": steps,
        "seed": number,
        "faults": {fault: machine.injected[fault] for fault in FAULTS},
        "seconds": round(time.monotonic() - began),
        "python": platform.python_version(),
    }


def page(rows: dict[str, Any]) -> str:
    known = [name for name in PARTS if name in rows]
    lines = [HEAD]
    for name in known:
        row = rows[name]
        faults = sum(row["faults"].values())
        lines.append(f"| {WHAT[name]} | {row['runs']} | {row['steps']} | {faults} | {row['seed']}, {row.get('batches', 1)} |")
    lines += ["", "Faults that were met, by kind:", ""]
    lines += ["| Fault | " + " | ".join(known) + " |", "| --- |" + " --- |" * len(known)]
    lines += [f"| {fault} | " + " | ".join(str(rows[name]["faults"].get(fault, 0)) for name in known) + " |" for fault in FAULTS]
    return "\n".join([*lines, FOOT])


if __name__ == "__main__":
    sys.exit(main())
