"""The commit log: which checkpoints exist is decided by one conditional create, and by nothing else.

    steps/<step>-a<attempt>/rank-<r>/...      files of one rank
    steps/<step>-a<attempt>/rank-<r>.json     their sizes and digests
    steps/<step>-a<attempt>/MANIFEST.json     the ranks' digests, and what the trainer says about itself
    log/<number>.json                         commit | fence | tombstone | quarantine, numbered 1, 2, 3, ...

A number is created with "if absent", by somebody who has read all the numbers before it. So the log has no gaps, it is never rewritten, all
see the same order, and whoever created number n decided on the state that numbers 1 to n-1 describe. There is no lock, no lease and no
file called `latest`, and no clock decides anything.

An attempt starts with a fence. A checkpoint is uploaded (the numbers are the points at which a writer can die; the code carries them):

(1) Nothing is uploaded, or (2) some of a rank's files are, or (3) all of them and no rank manifest, or (4) the manifests of k ranks of N,
or (5) MANIFEST.json too: nothing refers to any of it. To readers it does not exist, and retention deletes it when a newer fence says that
its writer can never commit it.

(6) The record is created. If the request is lost, there is no commit. If the answer is lost, there is one, and the writer does not know:
it reads the number back and compares, and a nonce tells its own record from that of a twin. If somebody else has the number, the writer
reads what they did: a newer fence ends it (it is a zombie, and another attempt goes on from an older commit), anything else sends it on
to the next number.

(7) The commit exists and nobody has been told. The next attempt reads the log and resumes from it.

Retention writes a tombstone (8), and then deletes (9). A reader that saw the commit before the tombstone may find files gone, one that
looks after it does not take the commit. Dying at (8) or amid (9) leaves files that the next retention deletes.

A reader walks from the last number to the first and takes the first commit that no later record took away. It verifies what it reads
against the digests: record -> MANIFEST -> rank manifests -> files. On a mismatch it appends a quarantine record and takes the commit
before.

A record that cannot be read any more keeps its number. It may have been a fence: a writer that meets one behind its own fence stops.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.checkpoints.record import Commit, CommitStatus, Record, commit_of, decode, encode
from trainjobs.stores.store import BlobStore, Missing, create

FOLDER = "log"


class Fenced(JobError):
    """Attempt `attempt` may not write any more, for the reason `why`."""

    def __init__(self, attempt: int, why: str) -> None:
        what, how = f"attempt {attempt} of this run has been replaced", "this process stops; nothing was overwritten"
        super().__init__("GTJ0117", what, why=why, how=how)
        self.attempt = attempt

    def __reduce__(self) -> tuple[Any, ...]:
        return (Fenced, (self.attempt, self.why))


class Log:
    """One process's view of the log. Records are immutable, so each is read once. `pause` waits so many seconds between tries."""

    def __init__(self, store: BlobStore, *, now: Callable[[], float], pause: Callable[[float], None] = time.sleep) -> None:
        self._store, self._now, self._pause = store, now, pause
        self._records: dict[int, Record] = {}
        self._tail: int | None = None  # the last number known to be taken

    def fence(self) -> int:
        """Begin an attempt and end all before it. Returns its number, from 1."""

        def propose() -> Record:
            attempt, unreadable = 0, 0
            for record in self.backwards():
                attempt = max(attempt, record.attempt)
                unreadable += record.kind == "unreadable"  # each may have been a fence
                if record.kind == "fence":
                    break
            return Record(0, "fence", attempt + unreadable + 1, self._now(), {})

        return self._append(propose).attempt

    def commit(self, attempt: int, body: dict[str, Any]) -> Commit:
        """Commit `body` (step, samples, prefix, manifest, size, world, metadata, metrics). Again with the same body: the commit there is.

        Raises Fenced. ValueError for a step that is not above the attempt's last one: going back takes a new attempt.
        """

        def propose() -> Record:
            for record in self.backwards():
                if record.kind == "unreadable":
                    raise Fenced(attempt, f"record {record.seq} of the log is damaged and may be a newer attempt's fence")
                if record.attempt > attempt:  # its fence, or what it has written behind that
                    raise Fenced(attempt, f"attempt {record.attempt} has begun")
                if record.kind == "fence":
                    if record.attempt < attempt:
                        raise ValueError(f"attempt {attempt} has not begun")
                    break
                if record.kind == "commit" and record.body is not None:
                    if (record.body["prefix"], record.body["manifest"]) == (body["prefix"], body["manifest"]):
                        return record
                    if record.body["step"] >= body["step"]:
                        raise ValueError(f"step {body['step']} after step {record.body['step']} in attempt {attempt}")
            else:
                raise ValueError(f"attempt {attempt} has not begun")
            return Record(0, "commit", attempt, self._now(), body)

        if self._known_fence() < attempt:
            self.refresh()  # another process has begun the attempt, since we last looked
        return commit_of(self._append(propose))

    def tombstone(self, attempt: int, choose: Callable[[Sequence[CommitStatus]], Sequence[Commit]]) -> None:
        """Take out of use what `choose` chooses; it is asked again whenever somebody else was first.

        Raises Fenced, unless `attempt` is 0: on behalf of none.
        """

        def propose() -> Record | None:
            if attempt:
                self.check_fences(attempt)
            chosen = [commit.seq for commit in choose(self.statuses())]
            return Record(0, "tombstone", attempt, self._now(), {"commits": chosen}) if chosen else None

        self._try_append(propose)

    def quarantine(self, commit: Commit, why: str) -> None:
        """Take a damaged commit out of use. One that is out of use stays as it is: retention may have deleted it under the reader."""

        def propose() -> Record | None:
            known = next((status for status in self.statuses() if status.commit.seq == commit.seq), None)
            if known is None or known.state != "live":
                return None
            return Record(0, "quarantine", 0, self._now(), {"commits": [commit.seq], "why": why})

        self._try_append(propose)

    def check_fences(self, attempt: int) -> None:
        """Raises Fenced when a newer attempt has begun, as far as the known records say."""
        if (newest := self._known_fence()) > attempt:
            raise Fenced(attempt, f"attempt {newest} has begun")

    def newest(self) -> Commit | None:
        """The last commit in use. Reads no further back than to it."""
        killed: set[int] = set()
        for record in self.backwards():
            killed.update(record.kills)
            if record.kind == "commit" and record.seq not in killed:
                return commit_of(record)
        return None

    def statuses(self) -> list[CommitStatus]:
        """All commits, oldest first. The first record that took one out of use counts, but deletion ends everything."""
        killers: dict[int, Record] = {}
        found: list[CommitStatus] = []
        for record in self.backwards():
            for seq in record.kills:
                if seq not in killers or killers[seq].kind == "quarantine":
                    killers[seq] = record
            if record.kind == "commit":
                found.append(_status(commit_of(record), killers.get(record.seq)))
        return found[::-1]

    def unreadable(self, after: int) -> list[str]:
        """The keys of the damaged records behind number `after`, oldest first. Each may have been a commit."""
        return [_key(record.seq) for record in self.backwards() if record.kind == "unreadable" and record.seq > after][::-1]

    def backwards(self) -> Iterator[Record]:
        """The records known so far, last first."""
        for seq in range(self._known_tail(), 0, -1):
            yield self._read(seq)

    def refresh(self) -> None:
        """Learn what others have appended."""
        seq = self._known_tail() + 1
        while True:
            try:
                self._records[seq] = decode(seq, self._store.get(_key(seq)))
            except Missing:
                return
            self._tail = seq
            seq += 1

    def _append(self, propose: Callable[[], Record]) -> Record:
        record = self._try_append(propose)
        assert record is not None
        return record

    def _try_append(self, propose: Callable[[], Record | None]) -> Record | None:
        """Append what `propose` returns, asked anew for every number: a Record with a number is there already, None is nothing to say."""
        nonce = secrets.token_hex(16)
        while True:
            proposed = propose()
            if proposed is None or proposed.seq:
                return proposed
            seq = self._known_tail() + 1
            record = Record(seq, proposed.kind, proposed.attempt, proposed.time, proposed.body)
            other = create(self._store, _key(seq), encode(record, nonce), pause=self._pause)  # (6) (8)
            self._records[seq] = record if other is None else decode(seq, other)
            self._tail = seq
            if other is None:
                return record

    def _known_fence(self) -> int:
        """The newest attempt that the known records tell of, 0 for none."""
        return next((record.attempt for record in self.backwards() if record.kind == "fence"), 0)

    def _known_tail(self) -> int:
        if self._tail is None:
            keys = [entry.key for entry in self._store.entries(FOLDER)]
            self._tail = max((seq for seq in map(_number, keys) if seq is not None), default=0)
        return self._tail

    def _read(self, seq: int) -> Record:
        if seq not in self._records:
            try:
                self._records[seq] = decode(seq, self._store.get(_key(seq)))
            except Missing:
                self._records[seq] = Record(seq, "unreadable")
        return self._records[seq]


def _status(commit: Commit, killer: Record | None) -> CommitStatus:
    if killer is None:
        return CommitStatus(commit, "live")
    if killer.kind == "tombstone":
        return CommitStatus(commit, "deleted", killer.time)
    return CommitStatus(commit, "corrupt", killer.time, (killer.body or {}).get("why", ""))


def _key(seq: int) -> str:
    return f"{FOLDER}/{seq:016d}.json"


def _number(key: str) -> int | None:
    name = key.removeprefix(f"{FOLDER}/").removesuffix(".json")
    return int(name) if len(name) == 16 and name.isdigit() else None
