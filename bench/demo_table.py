"""The section of docs/benchmarks.md about the demo."""

from __future__ import annotations

from typing import Any


def section(run: dict[str, Any] | None) -> list[str]:
    """What `make demo` takes, and how often it draws what is asked for."""
    if run is None:
        return []
    lines = [
        "## The demo",
        "",
        "`make demo` (`bench/demo.py`): a diffusion model on captioned shapes, two workers. Of pictures of all 18 captions how many have",
        "the colour, and how many the shape, that was asked for, by a judge of pixels (`tests/sampling/judge.py`); by chance a sixth and a",
        "third. Samples with guidance 1 follow the condition alone.",
        "",
        f"Training and its start took {run['processorSeconds']:.0f} s of processors, the half of which is its time on two idle cores, and",
        f"{run['seconds']:.0f} s on this machine, whose load was {run['machine']['loadBefore']:g}.",
        "",
        "| Guidance | pictures | colours | shapes |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {row['guidance']:g} | {row['pictures']} | {row['colours']} | {row['shapes']} |" for row in run["obeyed"]]
    return [*lines, ""]
