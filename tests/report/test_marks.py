"""Marks on the curves, and the time that was trained."""

from __future__ import annotations

import pytest

from trainjobs.report.marks import marks, trained
from trainjobs.run.folder import Row

DAY = 86400.0


def event(kind: str, time: float, step: int | None = None, message: str = "") -> Row:
    return {"event": kind, "time": time, "step": step, "message": message}


def test_what_did_not_simply_go_on_is_marked_once_a_step() -> None:
    found = marks(
        [
            event("started", 0.0, 0), event("checkpoint", 1.0, 10), event("rolled back", 2.0, 10, "loss not finite at step 12"),
            event("rolled back", 3.0, 10, "loss not finite at step 14"), event("rolled back", 3.5, 10, "loss not finite at step 14"),
            event("dataChanged", 4.0, 20, "2 files added"), event("resumed", 5.0, 20), event("resumed", 6.0, None),
            event("unheard of", 7.0, 20),
        ]
    )  # fmt: skip
    assert [(mark.step, mark.word) for mark in found] == [(10, "rolled back"), (20, "data changed"), (20, "resumed")]
    assert found[0].message == "loss not finite at step 12; loss not finite at step 14"
    assert found[1].message == "2 files added"


@pytest.mark.parametrize(
    ("events", "rows", "seconds"),
    [
        ([], [], None),
        ([event("failed", 5.0)], [], None),
        ([event("started", 100.0, 0), event("succeeded", 120.0, 9)], [], 20.0),
        # Resumed the next day: the day between is no training.
        ([event("started", 0.0), event("stopped", 12.0), event("resumed", DAY), event("succeeded", DAY + 8.0)], [], 20.0),
        # Killed without a word; what it measured last is what is known of it.
        ([event("started", 0.0), event("checkpoint", 5.0), event("resumed", DAY), event("succeeded", DAY + 8.0)], [{"time": 11.0}], 19.0),
        # Nobody noticed for an hour that a worker was gone, and then the driver said that it had failed.
        (
            [
                event("started", 0.0), event("checkpoint", 5.0), event("worker-lost", 3605.0),
                event("resumed", 3606.0), event("failed", 9000.0),
            ],
            [], 5.0,
        ),
        # Still running: up to the last row.
        ([event("started", 50.0)], [{"time": 51.0}, {"time": 65.5}], 15.5),
        ([event("started", 50.0)], [], 0.0),
    ],
)  # fmt: skip
def test_training_time_is_what_was_trained(events: list[Row], rows: list[Row], seconds: float | None) -> None:
    assert trained(events, rows) == seconds
