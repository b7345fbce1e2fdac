"""How long a step takes, from what a run measured: its own history, or twenty steps of a probe. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]
ENOUGH = 5  # intervals between rows, fewer say nothing
MARGIN = 0.1  # either way, beyond the spread: a longer run meets other moments than a short look
BESIDE = ("evaluated", "checkpoint", "started", "resumed", "rolled back")  # events that take time which is no step's


@dataclass(frozen=True)
class Pace:
    """Seconds of a step of so many `ranks`: from, median, to; `basis` in words."""

    low: float
    median: float
    high: float
    ranks: int
    basis: str


def pace(rows: Sequence[Row], events: Iterable[Row], ranks: int, name: str, *, last: int | None = None) -> Pace | None:
    """From rows of metrics.jsonl and attempts.jsonl: the tenth and the ninetieth percentile of the seconds of a step between one row and
    the next, and a tenth beyond them. Of the `last` intervals alone, where that is given. None where there are too few."""
    found = seconds(rows, events)
    found = found[-last:] if last else found
    if len(found) < ENOUGH:
        return None
    every = sorted(each for each, _ in found)
    low, high = every[len(every) // 10], every[-1 - len(every) // 10]
    median = statistics.median(every)
    steps = sum(count for _, count in found)
    basis = f"{name}: {steps} steps, median {_short(median)}, {_short(every[0])} to {_short(every[-1])}"
    return Pace((1 - MARGIN) * low, median, (1 + MARGIN) * high, ranks, basis)


def seconds(rows: Sequence[Row], events: Iterable[Row]) -> list[tuple[float, int]]:
    """Of each interval between two rows of training the seconds of a step, and how many steps it has; not where something else than a step
    was done in it."""
    beside = [event["time"] for event in events if event.get("event") in BESIDE and isinstance(event.get("time"), int | float)]
    steps = [row for row in rows if "samples" in row and isinstance(row.get("time"), int | float) and isinstance(row.get("step"), int)]
    found = []
    for before, after in pairwise(steps):
        count, length = after["step"] - before["step"], after["time"] - before["time"]
        if count > 0 and length > 0 and not any(before["time"] <= at <= after["time"] for at in beside):
            found.append((length / count, count))
    return found


def _short(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
