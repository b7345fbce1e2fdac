"""What may be deleted. Both answers are pure functions of the log; `Checkpoints.retain` acts on them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints.record import Commit, CommitStatus, Record

FOLDER = "steps"
STEP = re.compile(r"steps/(?P<step>\d{12,})-a(?P<attempt>\d+)")


def prefix(step: int, attempt: int) -> str:
    return f"{FOLDER}/{step:012d}-a{attempt}"


def doomed(statuses: Sequence[CommitStatus], keep: Keep) -> list[Commit]:
    """The commits that nothing asks to keep any more, oldest first. `statuses` oldest first.

    Kept are, of the live commits: the last `keep.last`, those at multiples of `keep.every_steps` and at `keep.pinned` (where a run went
    back and came by again, the newer one), and the best by `keep.best` (the newest of equals; one without that metric is not the best).
    A corrupt commit counts for none of these. It stays to be looked at until `keep.last` live ones are newer.
    """
    live = [status.commit for status in statuses if status.state == "live"]
    last = live[-keep.last :]
    kept = {commit.seq for commit in last}
    by_step = {commit.step: commit for commit in live}
    kept |= {commit.seq for step, commit in by_step.items() if step in keep.pinned or (keep.every_steps and step % keep.every_steps == 0)}
    if keep.best is not None:
        metric, sign = keep.best.metric, 1 if keep.best.mode == "max" else -1
        scored = [(sign * commit.metrics[metric], commit.seq) for commit in live if metric in commit.metrics]
        if scored:
            kept.add(max(scored)[1])
    stale = [
        status.commit for status in statuses if status.state == "corrupt" and len(last) == keep.last and status.commit.seq < last[0].seq
    ]
    return sorted([commit for commit in live if commit.seq not in kept] + stale, key=lambda commit: commit.seq)


def garbage(folders: Sequence[str], records: Sequence[Record], statuses: Sequence[CommitStatus], before: float) -> list[str]:
    """The step folders that nobody can need, out of those that exist; `records` is the whole log, in any order.

    A committed folder goes when its commit was tombstoned not after `before`. A folder without a commit goes when it can never get one:
    its attempt is fenced, or has committed a later step. When a record is unreadable it may be that folder's commit: then it stays.
    Folders with names of another kind are not ours.
    """
    committed = {status.commit.prefix: status for status in statuses}
    fence = max((record.attempt for record in records if record.kind == "fence"), default=0)
    reached = max((status.commit.step for status in statuses if status.commit.attempt == fence), default=-1)
    damaged = any(record.kind == "unreadable" for record in records)
    found = []
    for folder in folders:
        name = STEP.fullmatch(folder)
        if name is None:
            continue
        step, attempt = int(name["step"]), int(name["attempt"])
        status = committed.get(folder)
        if status is not None:
            gone = status.state == "deleted" and status.since <= before
        else:
            gone = not damaged and (attempt < fence or (attempt == fence and step < reached))
        if gone:
            found.append(folder)
    return found
