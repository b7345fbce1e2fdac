"""From rows of metrics to the charts of a report: which quantities share one, and how many points are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from trainjobs.api.metrics import METRICS
from trainjobs.run.numbers import number

LIMIT = 2000
# From this ratio of largest to smallest value on, a linear axis hides what happens near the end.
LOG_RATIO = 100.0
# What a loss is counted in, by family. A GAN's has no unit: it is the score of a game.
UNITS = {"vae": "nats a sample", "language": "nats a token", "diffusion": "mean squared error"}
# Below this many points a curve is drawn as it is.
SMOOTH_FROM = 80


@dataclass(frozen=True)
class Series:
    """One curve. `values` may hold NaN and infinity: the chart marks them."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes. `noisy` curves are drawn pale under their running mean. `unit` names the axis of the values; a
    chart of `losses` has the scale of the others."""

    title: str
    series: tuple[Series, ...]
    noisy: bool = False
    unit: str = ""
    losses: bool = False

    @property
    def values(self) -> list[float]:
        """The finite ones, of all curves."""
        return [value for one in self.series for value in one.values if math.isfinite(value)]


def steps(drawn: Sequence[Chart]) -> tuple[int, int] | None:
    """The first and the last step of all charts: they share their horizontal axis."""
    found = [step for chart in drawn for one in chart.series for step in one.steps]
    return (min(found), max(found)) if found else None


def scales(drawn: Sequence[Chart]) -> list[bool]:
    """Which charts have a logarithmic axis of values. The rule: all values are positive, and the largest is LOG_RATIO times the smallest
    or more. Charts of losses are compared with each other, so one that needs it takes along the others whose values are all positive."""
    positive = [bool(chart.values) and min(chart.values) > 0 for chart in drawn]
    wide = [good and max(chart.values) / min(chart.values) >= LOG_RATIO for chart, good in zip(drawn, positive, strict=True)]
    together = any(needs and chart.losses for chart, needs in zip(drawn, wide, strict=True))
    return [needs or (good and chart.losses and together) for chart, needs, good in zip(drawn, wide, positive, strict=True)]


def charts(rows: Sequence[Mapping[str, Any]], family: str = "", rate: str = "") -> list[Chart]:
    """The charts of a run: metrics we know in their table's order, then those of the user's own, learning rates and throughput last. `rate`
    is the unit of the throughput."""
    found = collected(rows)
    drawn: list[Chart] = []
    for title, members in groupby(METRICS, key=lambda metric: metric.chart):
        known = [metric for metric in members if metric.name in found]
        if known:
            series = tuple(Series(metric.label, *found.pop(metric.name)) for metric in known)
            losses = any("loss" in metric.name.split("/") for metric in known)
            unit = known[0].unit or (UNITS.get(family, "") if losses or title == "Reconstruction" else "")
            drawn.append(Chart(title, series, known[0].noisy, unit, losses))
    rates = sorted(name for name in found if name.startswith("lr/"))
    last = []
    if rates:
        names = tuple(Series(name.removeprefix("lr/"), *found.pop(name)) for name in rates)
        last.append(Chart("Learning rate", names))
    if "throughput" in found:
        last.append(Chart("Throughput", (Series("per second", *found.pop("throughput")),), unit=rate or "per second"))
    others = [
        Chart(name, (Series(name.rsplit("/", 1)[-1], *found[name]),), name.startswith("loss/"), losses=name.startswith("loss/"))
        for name in sorted(found)
    ]
    return drawn + others + last


def collected(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
    """metric -> (steps, values), in the order of the rows. Bookkeeping and what is not a number is left out."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for name, raw in row.items():
            value = None if name in ("step", "samples", "time") else number(raw)
            if value is not None:
                steps, values = found.setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(value)
    return {name: (tuple(steps), tuple(values)) for name, (steps, values) in found.items()}


def downsampled(series: Series, limit: int = LIMIT) -> Series:
    """At most `limit` points. Each bucket keeps its smallest and its largest value, so that no spike is lost, and the ends stay."""
    count = len(series.steps)
    if count <= limit:
        return series
    buckets = (limit - 2) // 2
    kept = {0, count - 1}
    for bucket in range(buckets):
        inside = range(1 + bucket * (count - 2) // buckets, 1 + (bucket + 1) * (count - 2) // buckets)
        # NaN compares false to everything: it must not become the smallest by standing first.
        kept |= {min(inside, key=lambda i: ordered(series.values[i])), max(inside, key=lambda i: ordered(series.values[i]))}
    chosen = sorted(kept)
    return Series(series.label, tuple(series.steps[i] for i in chosen), tuple(series.values[i] for i in chosen))


def ordered(value: float) -> float:
    return math.inf if math.isnan(value) else value


def smoothed(series: Series) -> Series:
    """The mean over a window of a fortieth of the points around each, of the finite ones. Same steps; O(n)."""
    half = max(2, len(series.values) // 80)
    sums, counts = [0.0], [0]
    for value in series.values:
        finite = math.isfinite(value)
        sums.append(sums[-1] + (value if finite else 0.0))
        counts.append(counts[-1] + finite)
    means = []
    for index, value in enumerate(series.values):
        low, high = max(0, index - half), min(len(series.values), index + half + 1)
        inside = counts[high] - counts[low]
        means.append((sums[high] - sums[low]) / inside if inside and math.isfinite(value) else math.nan)
    return Series(series.label, series.steps, tuple(means))
