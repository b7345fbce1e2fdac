"""Where a run did not simply go on: marks on its curves, and how long it was really trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainjobs.run.folder import Row
from trainjobs.run.numbers import instant

BEGINS = ("started", "resumed")
# Kinds of events that mark the curves: the words, and the tone of the line. Whatever else stands in the timeline is left out.
KINDS = {"resumed": ("resumed", "live"), "rolled back": ("rolled back", "warn"), "dataChanged": ("data changed", "bad")}
# Written later, by who noticed: nothing was trained in between.
NOTICED = ("worker-lost", "failed")


@dataclass(frozen=True)
class Mark:
    """At `step`, in a word; `message` is the whole story."""

    step: int
    word: str
    tone: str
    message: str


def marks(events: Sequence[Row]) -> list[Mark]:
    """In order of their steps. Several of one kind at one step are one."""
    found: dict[tuple[int, str], Mark] = {}
    for event in events:
        kind, step = event.get("event"), event.get("step")
        if isinstance(kind, str) and kind in KINDS and isinstance(step, int):
            word, tone = KINDS[kind]
            before = found.get((step, kind))
            said = str(event.get("message") or "")
            if before is not None:
                said = "; ".join(dict.fromkeys(filter(None, (*before.message.split("; "), said))))
            found[step, kind] = Mark(step, word, tone, said)
    return [found[key] for key in sorted(found)]


def trained(events: Sequence[Row], rows: Sequence[Row]) -> float | None:
    """Seconds of training: of each group of workers from its first step on until what it told last. Days between two attempts, or the
    minutes until somebody noticed that a worker was gone, are none. None when nothing was trained."""
    begun = [at for event in events if event.get("event") in BEGINS and (at := instant(event.get("time"))) is not None]
    if not begun:
        return None
    told = sorted(moments(events, rows))
    total = 0.0
    for start, end in zip(begun, [*begun[1:], float("inf")], strict=True):
        total += max((at - start for at in told if start <= at < end), default=0.0)
    return total


def moments(events: Sequence[Row], rows: Sequence[Row]) -> Iterator[float]:
    for event in (*(event for event in events if event.get("event") not in NOTICED), *rows):
        if (at := instant(event.get("time"))) is not None:
            yield at
