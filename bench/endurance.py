"""How much of the time is training when a run is hit every half minute: against the best that any interval between checkpoints could do.

A step of the job that is run takes a fixed time in which no core is busy (tests/faults/paced.py). Measured are, in the same call: a step
without checkpoints and with them, so what a checkpoint costs; the run under fire; and the same steps undisturbed, for the weights.

Goodput is the time of the steps that were gained, over the time that passed, from the first step to the last recovery; goodput.py says what
the best would be.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any

from tests.faults.endurance import EVERY_STEPS, PAUSE, Endured, Runner, contents, endure, manifest

SECONDS, EVERY, SEED = float(os.environ.get("GENTRAIN_ENDURANCE", "900")), 30.0, 0
CALIBRATED = 300  # steps
USEFUL = 0.6  # of the time; steps are made for so much of it, so that the run lasts about as long as it is hit


def measure() -> list[dict[str, Any]]:
    steps = int(USEFUL * SECONDS / PAUSE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, saving = (calibrated(folder / f"every-{every}", every) for every in (10 * CALIBRATED, EVERY_STEPS))
        undisturbed = Runner(folder / "undisturbed", manifest(steps, 0.0))
        undisturbed.finish(1800)
        runner = Runner(folder / "hit", manifest(steps, PAUSE))
        try:
            endured = endure(runner, SECONDS, EVERY, random.Random(SEED))
        finally:
            runner.end()
        runner.finish(1)
        expected, ours = contents(undisturbed.run), contents(runner.run)
        lags = [lag for lag in saved_after(runner) if lag >= 0]
    row = {"asked": SECONDS, "steps": steps, "hits": endured.counts, "same": ours == expected, "files": len(expected) - 1}
    return [row | figures(endured, plain, max(0.0, saving - plain) * EVERY_STEPS) | {"commitLag": median(lags)}]


def calibrated(folder: Path, every_steps: int) -> float:
    """Seconds of a step."""
    runner = Runner(folder, manifest(CALIBRATED, PAUSE, every_steps))
    runner.finish(600)
    rows = [(float(row["time"]), int(row["step"])) for row in runner.run.metrics() if row["step"] < CALIBRATED and "loss" in row]
    (begin, first), (end, last) = rows[0], rows[-1]
    return (end - begin) / (last - first)


def saved_after(runner: Runner) -> list[float]:
    """Seconds from a checkpoint's step to its commit, where the step's row is still there."""
    at = {int(row["step"]): float(row["time"]) for row in runner.run.metrics() if "loss" in row}
    saved = [row for row in runner.run.attempts() if row.get("event") == "checkpoint"]
    return [float(row["time"]) - at[row["step"]] for row in saved if row["step"] in at]


def figures(endured: Endured, step: float, cost: float) -> dict[str, Any]:
    """`step` and `cost` in seconds, of a step and of a checkpoint."""
    last = endured.hits[-1]
    window = last.back - endured.began
    between = window / len(endured.hits)
    restart = mean(hit.back - hit.at for hit in endured.hits)
    by_kind = {kind: [hit.back - hit.at for hit in endured.hits if hit.kind == kind] for kind in endured.counts}
    return {
        "seconds": window,
        "gained": last.step,
        "stepSeconds": step,
        "checkpointSeconds": cost,
        "interval": EVERY_STEPS * step,
        "betweenHits": between,
        "restartSeconds": restart,
        "restartByKind": {kind: mean(found) for kind, found in by_kind.items() if found},
        "goodput": last.step * step / window,
    }
