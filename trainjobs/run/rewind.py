"""Going back to a step: what a run folder tells of later steps is of a future that did not happen, and is taken out.

Rows of metrics.jsonl and the TensorBoard events are progress.Metrics' business. Here is the rest: what was drawn, and what the timeline
says of evaluations and checkpoints. What happened to the run itself, a worker that was lost, a warning, stays in the timeline.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from trainjobs.run import progress

SAMPLE = re.compile(r"(?:step|reconstructed|between)-(\d+)\.(?:png|txt)(?:\.partial)?")
OF_A_STEP = ("evaluated", "checkpoint")  # events that say what there is of a step


def rewind(run: Path, step: int, now: Callable[[], float] = time.time) -> None:
    """The run goes on from `step`, 0 when from its beginning. `wentBack` in progress.json tells those who keep a copy of the folder."""
    drop_samples(run, step)
    drop_events(run, step)
    progress.update(run, now, wentBack={"step": step, "time": now()})


def drop_samples(run: Path, step: int) -> None:
    """Deletes what was drawn after `step`."""
    for path in (run / "samples").glob("*-*"):
        found = SAMPLE.fullmatch(path.name)
        if found and int(found[1]) > step:
            path.unlink(missing_ok=True)


def drop_events(run: Path, step: int) -> None:
    """Takes evaluations and checkpoints of steps after `step` out of the timeline."""
    path = run / "attempts.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if not undone(line, step)]
    if len(kept) < len(lines):
        progress.replace(path, "".join(kept))


def undone(line: str, step: int) -> bool:
    try:
        row = json.loads(line)
        return row["event"] in OF_A_STEP and int(row["step"]) > step
    except (ValueError, KeyError, TypeError):
        return False  # torn by a crash: readers leave it out
