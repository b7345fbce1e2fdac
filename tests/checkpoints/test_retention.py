"""What may be deleted, as tables."""

from __future__ import annotations

import pytest

from trainjobs.api.checkpoints import Best, Keep
from trainjobs.checkpoints.record import Commit, CommitStatus, Record
from trainjobs.checkpoints.retention import doomed, garbage, prefix


def commit(seq: int, step: int, attempt: int = 1, **metrics: float) -> Commit:
    return Commit(seq, attempt, step, 0, prefix(step, attempt), "", 0.0, {}, metrics, 0, 1)


def live(*commits: Commit) -> list[CommitStatus]:
    return [CommitStatus(commit, "live") for commit in commits]


STEPS = live(*(commit(seq, 100 * seq) for seq in range(1, 7)))
LOSSES = live(*(commit(seq, 100 * seq, loss=loss) for seq, loss in enumerate([3.0, 1.0, 2.0, 1.0, 5.0, 4.0], start=1)))


@pytest.mark.parametrize(
    ("statuses", "keep", "expected"),
    [
        ([], Keep(), []),
        (STEPS[:2], Keep(last=3), []),
        (STEPS, Keep(last=3), [100, 200, 300]),
        (STEPS, Keep(last=1, every_steps=200), [100, 300, 500]),
        (STEPS, Keep(last=1, every_steps=250), [100, 200, 300, 400]),
        (STEPS, Keep(last=1, pinned=[200]), [100, 300, 400, 500]),
        (LOSSES, Keep(last=1, best=Best(metric="loss")), [100, 200, 300, 500]),  # of the equals at 200 and 400 the newer
        (LOSSES, Keep(last=1, best=Best(metric="loss", mode="max")), [100, 200, 300, 400]),
        (STEPS, Keep(last=1, best=Best(metric="loss")), [100, 200, 300, 400, 500]),  # nobody has it: nobody is best
    ],
)
def test_what_is_dropped(statuses: list[CommitStatus], keep: Keep, expected: list[int]) -> None:
    assert [commit.step for commit in doomed(statuses, keep)] == expected


def test_the_last_are_those_committed_last_and_not_those_of_the_highest_step() -> None:
    """After going back from 300 to 100, the run's truth is at 150 and 200."""
    statuses = live(commit(1, 100), commit(2, 200), commit(3, 300), commit(5, 150, 2), commit(6, 200, 2))
    assert [gone.seq for gone in doomed(statuses, Keep(last=2))] == [1, 2, 3]
    assert [gone.seq for gone in doomed(statuses, Keep(last=1, every_steps=100))] == [2, 5], "of two at step 200 the newer"


def test_a_corrupt_commit_counts_for_nothing_and_stays_for_a_while() -> None:
    corrupt = CommitStatus(commit(2, 200), "corrupt", 0.0, "byte 7")
    statuses = [*live(commit(1, 100)), corrupt, *live(commit(3, 300))]
    assert doomed(statuses, Keep(last=2)) == [], "a corrupt one does not push out the one before"
    assert doomed([*statuses, *live(commit(4, 400))], Keep(last=2)) == [statuses[0].commit, corrupt.commit]
    assert doomed([*statuses, CommitStatus(commit(4, 400), "deleted")], Keep(last=2)) == []


FENCES = [Record(1, "fence", 1), Record(5, "fence", 2)]


@pytest.mark.parametrize(
    ("folder", "gone"),
    [
        (prefix(100, 1), True),  # tombstoned at 50
        (prefix(110, 1), False),  # tombstoned at 90, within the grace
        (prefix(200, 1), False),  # live
        (prefix(210, 1), False),  # corrupt
        (prefix(300, 1), True),  # died before its commit, and is fenced
        (prefix(300, 2), True),  # of the running attempt, which has committed 400 since
        (prefix(500, 2), False),  # being uploaded
        (prefix(500, 3), False),  # an attempt that we have not heard of
        ("steps/mine", False),
    ],
)
def test_folders(folder: str, gone: bool) -> None:
    statuses = [
        CommitStatus(commit(2, 100), "deleted", since=50.0),
        CommitStatus(commit(3, 110), "deleted", since=90.0),
        *live(commit(4, 200)),
        CommitStatus(commit(5, 210), "corrupt"),
        *live(commit(6, 400, 2)),
    ]
    assert garbage([folder], FENCES, statuses, before=60.0) == ([folder] if gone else [])
    damaged = [*FENCES, Record(7, "unreadable")]
    assert garbage([folder], damaged, statuses, before=60.0) == ([folder] if folder == prefix(100, 1) else [])
