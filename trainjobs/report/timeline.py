"""The timeline of a run: attempts as a strip over time, and what happened, in words."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from trainjobs.report.marks import BEGINS
from trainjobs.run.folder import Row
from trainjobs.run.numbers import duration, instant, moment

ENDS = {"worker-lost": "warn", "stopped": "warn", "failed": "bad", "succeeded": "good"}
ROUTINE = ("checkpoint", "evaluated")
MOST = 200


def strip(events: list[Row]) -> dict[str, Any] | None:
    """Attempts as bars and checkpoints as marks, in percent of the time from first event to last. None when there is no span."""
    timed = [(at, event) for event in events if (at := instant(event.get("time"))) is not None]
    if len(timed) < 2 or timed[-1][0] <= timed[0][0]:
        return None
    first, last = timed[0][0], timed[-1][0]

    def percent(at: float) -> float:
        return round(100 * (at - first) / (last - first), 3)

    bars: list[dict[str, Any]] = []
    began: tuple[float, Row] | None = None
    for at, event in timed:
        kind = event.get("event")
        if began is not None and (kind in ENDS or kind in BEGINS):
            bars.append(bar(began, at, ENDS.get(str(kind), "warn"), percent))
            began = None
        if kind in BEGINS:
            began = (at, event)
    if began is not None:
        bars.append(bar(began, last, "live", percent))
    marks = [{"at": percent(at), "step": event.get("step")} for at, event in timed if event.get("event") == "checkpoint"]
    return {"bars": bars, "marks": marks[-500:], "length": duration(last - first), "start": moment(first), "end": moment(last)}


def bar(began: tuple[float, Row], end: float, tone: str, percent: Any) -> dict[str, Any]:
    start, event = began
    title = f"attempt {event.get('attempt', '?')}, {duration(end - start)}"
    return {
        "left": percent(start),
        "width": max(0.4, percent(end) - percent(start)),
        "tone": tone,
        "title": title,
        "label": event.get("attempt", ""),
    }


def told(events: list[Row], *, said_above: bool = False) -> list[dict[str, Any]]:
    """One row per event; runs of checkpoints and evaluations become one row. The last 200. `said_above`: why it failed in the end stands
    elsewhere on the page already."""
    first = next((at for event in events if (at := instant(event.get("time"))) is not None), None)
    found = list(rows(events, first))[-MOST:]
    if said_above and found and found[-1]["kind"] == "failed":
        found[-1]["message"] = "for the reason above"
    return found


def rows(events: list[Row], first: float | None) -> Iterator[dict[str, Any]]:
    for routine, group in groupby(events, key=lambda event: event.get("event") in ROUTINE):
        members = list(group)
        if routine and len(members) > 2:
            yield summed(members, first)
        else:
            yield from (row(event, first) for event in members)


def row(event: Row, first: float | None) -> dict[str, Any]:
    at = instant(event.get("time"))
    kind = str(event.get("event", "?"))
    step = event.get("step")
    return {
        "when": moment(at),
        "after": f"+{duration(at - first)}" if at is not None and first is not None else "",
        "kind": kind,
        "tone": ENDS.get(kind, "live" if kind in BEGINS else "warn" if kind in ("warning", "rolled back", "dataChanged") else ""),
        "step": "" if step is None else str(step),
        "message": str(event.get("message") or ""),
    }


def summed(events: list[Row], first: float | None) -> dict[str, Any]:
    saved = sum(1 for event in events if event.get("event") == "checkpoint")
    seen = len(events) - saved
    parts = [
        f"{saved} checkpoint{'s' if saved != 1 else ''}" if saved else "",
        f"{seen} evaluation{'s' if seen != 1 else ''}" if seen else "",
    ]
    low, high = events[0].get("step"), events[-1].get("step")
    return {
        **row(events[-1], first),
        "kind": "routine",
        "tone": "",
        "step": f"{low}–{high}",
        "message": " and ".join(part for part in parts if part),
    }
