"""The probe's part of docs/benchmarks.md."""

from __future__ import annotations

from typing import Any


def section(result: dict[str, Any] | None) -> list[str]:
    """How often a probe's range held what the run after it took."""
    if result is None:
        return []
    lines = [
        "## The range of a probe",
        "",
        "`gtj plan --probe`, then 500 steps of the same job in one process; milliseconds of a step.",
        "",
    ]
    lines += ["| Family | probe, from and to | 500 steps | held |", "| --- | --- | --- | --- |"]
    for row in result["pairs"]:
        low, high, took = (1000 * row[name] for name in ("low", "high", "seconds"))
        lines.append(f"| {row['family']} | {low:.3g} to {high:.3g} | {took:.3g} | {'yes' if row['held'] else 'no'} |")
    held = sum(1 for row in result["pairs"] if row["held"])
    return [*lines, "", f"Held in {held} of {len(result['pairs'])}.", ""]
