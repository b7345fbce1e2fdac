"""The section of docs/benchmarks.md about each family beside what a user would pick instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.peers import MISSING, OURS
from bench.ratios import ratio


def section(result: Mapping[str, Any] | None) -> Sequence[str]:
    """Nothing where it was never run."""
    if result is None:
        return []
    load = result["machine"]["loadBefore"]
    lines = [
        "## Each family beside what one would take instead",
        "",
        "The same network, data, batch, precision (fp32) and optimizer (`bench/peers.py`), one thread, each run in a fresh process; ours",
        "is the loop in its own process, without Ray. Rates are ours / theirs, so above 1 we are faster; first step and memory are ours /",
        "theirs, so below 1 we are sooner or smaller. Memory is the resident set at its highest. Goal: at least 1.0 of the best in rate.",
        f"The machine's load was {load:g} on {result['machine']['cores']} cores: where that is above 1, read the rate by processor time.",
        "",
        "| Family | peer | rate | by processor time | first step | memory | ours, samples/s | rounds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["pairs"]:
        rounds = row["rounds"]
        for way in [way for way in rounds[0] if way != OURS]:
            ratios = (ratio([turn[OURS][of] / turn[way][of] for turn in rounds]) for of in ("rate", "rate_processor", "first", "memory"))
            ours = median(turn[OURS]["rate"] for turn in rounds)
            lines.append(f"| {row['family']} | {way} | {' | '.join(ratios)} | {ours:.1f} | {len(rounds)} |")
        lines += [f"| {row['family']} | {way} | not installed here, so not compared | | | | | |" for way in row["missing"]]
    used = sorted({f"{name} {number}" for row in result["pairs"] for name, number in row["versions"].items()})
    lines += ["", f"Peers: {', '.join(used)}.", ""]
    if any(row["missing"] for row in result["pairs"]):
        lines += [f"What is missing: `{MISSING}`.", ""]
    return lines
