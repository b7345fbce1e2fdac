"""How long a step takes, from what a run measured: its own history, or twenty steps of a probe. Pure.

A run's time is its mean step times its steps, and the machine's slow moments are in that mean: the range holds the mean of what was seen,
and intervals between rows are half a second long, as a run makes them, so that each is the mean of many short steps."""

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


def pace(rows: Sequence[Row], events: Iterable[Row], ranks: int, name: str, *, warm: int = 0) -> Pace | None:
    """From rows of metrics.jsonl and attempts.jsonl: the tenth and the ninetieth percentile (nearest rank: of ten values the least and the
    greatest) of the seconds of a step between one row and the next, or the mean step where that is outside them, and a tenth beyond. Rows
    before step `warm` do not count. None where there are too few."""
    found = seconds([row for row in rows if _step(row) >= warm], events)
    if len(found) < ENOUGH:
        return None
    every, steps = sorted(each for each, _ in found), sum(count for _, count in found)
    mean = sum(each * count for each, count in found) / steps
    beyond = (len(every) - 1) // 10
    low, high = min(every[beyond], mean), max(every[-1 - beyond], mean)
    median = statistics.median(every)
    basis = f"{name}: {steps} steps, median {_short(median)}, {_short(every[0])} to {_short(every[-1])}"
    return Pace((1 - MARGIN) * low, median, (1 + MARGIN) * high, ranks, basis)


def enough(rows: Sequence[Row], steps: int, warm: int, length: float) -> bool:
    """Whether a probe has made so many `steps`, and those after step `warm` took `length` seconds."""
    times = [row["time"] for row in rows if _step(row) >= warm and isinstance(row.get("time"), int | float)]
    return bool(times) and max(map(_step, rows)) >= steps and times[-1] - times[0] >= length


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


def _step(row: Row) -> int:
    step = row.get("step")
    return step if isinstance(step, int) else -1


def _short(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
