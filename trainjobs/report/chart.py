"""One chart as inline SVG, and the numbers its hover needs. No library: axes, ticks and paths are a page of arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from trainjobs.report.curves import LIMIT, SMOOTH_FROM, Chart, Series, downsampled, scales, smoothed
from trainjobs.report.marks import Mark
from trainjobs.run.numbers import short

WIDTH, HEIGHT = 560, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 26, 26
APART = 76  # between two words over a chart; a mark that is nearer to the one before goes without
MOST_MARKS = 50


@dataclass(frozen=True)
class Axes:
    """Maps steps and values to the picture's coordinates."""

    first: int
    last: int
    low: float
    high: float
    log: bool

    def x(self, step: int) -> float:
        span = max(1, self.last - self.first)
        return LEFT + (step - self.first) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return HEIGHT - BOTTOM - (at - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def axes(chart: Chart, log: bool | None = None, span: tuple[int, int] | None = None) -> Axes | None:
    """None when there is nothing finite to draw. `log`: all values are positive; None: as the chart alone wants it. `span`: first and last
    step, by default its own."""
    values = chart.values
    steps = [step for series in chart.series for step in series.steps]
    if not values:
        return None
    low, high = min(values), max(values)
    log = scales([chart])[0] if log is None else log
    if log and low == high:
        low, high = low / 2, high * 2
    if not log:
        # A flat curve in the middle of the chart, not on its edge; a tenth of room otherwise.
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        low, high = (0.0 if low >= 0 and low <= margin * 3 else low - margin), high + margin
    first, last = span or (min(steps), max(steps))
    return Axes(first, last, low, high, log)


def drawn(chart: Chart, marks: Sequence[Mark] = (), log: bool | None = None, span: tuple[int, int] | None = None) -> dict[str, Any]:
    """{"title", "svg", "legend", "note", "hover"}: what the template prints for one chart."""
    frame = axes(chart, log, span)
    small = [downsampled(series, LIMIT) for series in chart.series]
    legend = [{"label": series.label, "last": short(series.values[-1])} for series in chart.series]
    if frame is None:
        return {"title": chart.title, "svg": "", "legend": legend, "note": "no finite value", "hover": None}
    notes = ["logarithmic"] if frame.log else []
    parts = [*grid(frame), *names(chart.unit or chart.title.lower()), *lines(marks, frame)]
    for index, series in enumerate(small):
        original = chart.series[index]
        mean = chart.noisy and len(original.values) >= SMOOTH_FROM
        parts.append(path(series, frame, f"curve s{index % 4}" + (" raw" if mean else "")))
        if mean:
            parts.append(path(downsampled(smoothed(original), LIMIT // 2), frame, f"curve s{index % 4}"))
            notes.append("bold: running mean") if "bold: running mean" not in notes else None
        parts += broken(series, frame)
    body = "".join(parts)
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}<g class="cursor"></g></svg>').format(
        WIDTH, HEIGHT, f"{chart.title} by step", Markup(body)
    )
    return {"title": chart.title, "svg": svg, "legend": legend, "note": ", ".join(notes), "hover": hover(small, frame)}


def hover(series: list[Series], frame: Axes) -> dict[str, Any]:
    """What the script needs to find the value under the pointer: positions and texts, per curve."""
    return {
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "width": WIDTH,
        "first": frame.first,
        "last": frame.last,
        "curves": [
            {
                "steps": one.steps,
                "y": [round(frame.y(value), 1) if math.isfinite(value) else None for value in one.values],
                "texts": [short(value) for value in one.values],
            }
            for one in series
        ],
    }


def path(series: Series, frame: Axes, kind: str) -> str:
    """A polyline that is interrupted where values are not finite; a lone point is drawn as a dot."""
    commands, pen = [], "M"
    finite = [math.isfinite(value) for value in series.values]
    for index, (step, value) in enumerate(zip(series.steps, series.values, strict=True)):
        if not finite[index]:
            pen = "M"
            continue
        commands.append(f"{pen}{frame.x(step):.1f} {frame.y(value):.1f}")
        if pen == "M" and (index + 1 == len(finite) or not finite[index + 1]):
            commands.append("h0.01")
        pen = "L"
    return f'<path class="{kind}" d="{"".join(commands)}"/>'


def broken(series: Series, frame: Axes) -> Iterator[str]:
    """Red marks at the foot of the chart where a value was NaN or infinite; at most fifty."""
    bad = [(step, value) for step, value in zip(series.steps, series.values, strict=True) if not math.isfinite(value)]
    for step, value in bad[:50]:
        title = escape(f"{series.label} {short(value)} at step {step}")
        yield f'<path class="broken" d="M{frame.x(step):.1f} {HEIGHT - BOTTOM}v-8"><title>{title}</title></path>'


def names(quantity: str) -> Iterator[str]:
    """What the axes count: the quantity above its axis, steps beside theirs."""
    yield f'<text class="tick name" x="4" y="14">{escape(quantity)}</text>'
    yield f'<text class="tick name" x="4" y="{HEIGHT - 7}">step</text>'


def lines(marks: Sequence[Mark], frame: Axes) -> Iterator[str]:
    """A dashed line where the run did not simply go on, named above the chart where there is room."""
    free: float = LEFT + APART
    for mark in [mark for mark in marks if frame.first <= mark.step <= frame.last][-MOST_MARKS:]:
        x = frame.x(mark.step)
        said = f"{mark.word} at step {mark.step}" + (f": {mark.message}" if mark.message else "")
        yield f'<g class="mark m-{mark.tone}"><title>{escape(said)}</title><path d="M{x:.1f} {TOP - 4}V{HEIGHT - BOTTOM}"/>'
        if x >= free:
            anchor = "end" if x > WIDTH - RIGHT - APART else "start"
            yield f'<text x="{x:.1f}" y="{TOP - 9}" text-anchor="{anchor}">{escape(mark.word)}</text>'
            free = x + APART
        yield "</g>"


def grid(frame: Axes) -> Iterator[str]:
    for value in logarithmic(frame.low, frame.high) if frame.log else linear(frame.low, frame.high):
        y = frame.y(value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{short(value)}</text>'
    for value in linear(frame.first, frame.last, 6):
        if value != int(value):
            continue
        x = frame.x(int(value))
        anchor = "end" if x > WIDTH - RIGHT - 14 else "middle"
        yield f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{short(int(value))}</text>'
    yield f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'


def linear(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within the range, about `count` of them: multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(math.log(size / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Rounded to the step's own digits: 3 * 0.1 is not 0.3.
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(index * step, digits) + 0.0 for index in range(first, last + 1)]


def logarithmic(low: float, high: float) -> list[float]:
    """Powers of ten within the range, thinned to about five."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**exponent for exponent in range(first, last + 1, max(1, (last - first) // 4))]
