"""A group of workers that is to end soon, because a machine is taken back or its number of workers changes: who asks, and whether a
checkpoint fits into the time that is left.

Who knows of it leaves a notice in the run folder: the driver, when it gets SIGTERM; the controller of the group, when a worker's node goes
or more workers have room (nodes.py). Rank 0 reads it at the next sync, decides, and all ranks do alike: they save, if it fits, and leave. A
notice in the file `stop` ends the run's driver as well; one in `reclaim.json` only has another group started, which goes on there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from trainjobs.api.problem import listed
from trainjobs.run import progress
from trainjobs.run.numbers import size

GRACE = "GENTRAIN_GRACE_SECONDS"  # the environment variable with the time between SIGTERM and the end of a pod
STOP, REPLACE = "stop", "reclaim.json"  # `stop` may also be empty: somebody asks, and nothing presses
MARGIN = 1.25  # an upload may be slower than the last one

Event = Literal["stopped", "reclaimed", "resized"]


@dataclass(frozen=True)
class Notice:
    """`why` in words. `deadline`: when it will be too late, seconds since the epoch; None when nobody waits for it."""

    event: Event
    why: str = ""
    deadline: float | None = None

    @property
    def replaces(self) -> bool:
        """Whether another group takes over, under the same driver."""
        return self.event != "stopped"


@dataclass(frozen=True)
class LastSave:
    """Whether to save before the end, and why, for people."""

    take: bool
    words: str


class Replaced(Exception):
    """How the workers of a group leave that another one is to follow. Nothing failed: the notice says why."""


def give(run: Path, notice: Notice) -> None:
    """Leave a notice, to be read at the next sync."""
    progress.replace(run / (REPLACE if notice.replaces else STOP), json.dumps(asdict(notice)))


def pending(run: Path) -> Notice | None:
    """The notice that counts: an end of the driver is the end of its group."""
    if (run / STOP).exists():
        deadline = progress.read(run / STOP).get("deadline")
        return Notice("stopped", str(progress.read(run / STOP).get("why", "")), deadline)
    found = progress.read(run / REPLACE)
    return Notice(found["event"], found["why"], found["deadline"]) if found else None


def withdraw(run: Path) -> None:
    """A new group begins: what the one before was told is not for it."""
    (run / REPLACE).unlink(missing_ok=True)


def announced(going: Mapping[str, int], ranks: Mapping[str, Sequence[int]], own: str) -> Notice | None:
    """What follows from the nodes that go, by id with the last moment in ms since the epoch, 0 for none. `ranks` are those on each of the
    group's nodes; `own` is the driver's node, without which nothing goes on."""
    affected = [node for node in going if node in ranks or node == own]
    if not affected:
        return None
    deadline = min((going[node] / 1000 for node in affected if going[node]), default=None)
    if own in affected:
        return Notice("stopped", "the driver's node is taken away", deadline)
    named = sorted(rank for node in affected for rank in ranks[node])
    what = f"the node of rank {named[0]} is" if len(named) == 1 else f"nodes of ranks {listed(named, 'and')} are"
    return Notice("reclaimed", f"{what} taken away", deadline)


def decide(size_bytes: int, seconds_per_byte: float | None, step_seconds: float, left: float | None) -> LastSave:
    """Whether a checkpoint fits into what is `left`, seconds, None for no end of it.

    It begins when the step under way is over, in `step_seconds` at most. `seconds_per_byte` is that of the last one, all of it: copying,
    uploading, committing; None when none was measured: then it is tried. A checkpoint that is cut off costs nothing but its time.
    `size_bytes` is that of the one before, 0 when there is none.
    """
    before = "the one before is kept" if size_bytes else "there is none before it"
    if left is None:
        return LastSave(True, "a checkpoint is taken")
    if seconds_per_byte is None:
        if left <= 0:
            return LastSave(False, f"no time is left: {before}")
        return LastSave(True, "a checkpoint is tried: how long one takes is not known yet")
    needed = step_seconds + size_bytes * seconds_per_byte
    takes = f"a checkpoint of {size(size_bytes)} takes {needed:.{0 if needed >= 10 else 1}f} s"
    if MARGIN * needed <= left:
        return LastSave(True, f"{takes}, {left:.0f} s are left: taken")
    return LastSave(False, f"{takes}, {max(0.0, left):.0f} s are left: not taken, {before}")


def told(notice: Notice, verdict: LastSave) -> str:
    return f"{notice.why}: {verdict.words}" if notice.why else verdict.words
