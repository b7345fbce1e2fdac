"""Saving: what the workers do together around the commit log, while training goes on.

Every rank copies its part into host memory (snapshot.py), and a process beside it hashes and uploads the copy (uploader.py). When all ranks
say so, at one of the talks they have anyway, rank 0 has its uploader commit. So the order is: copy, upload, commit; a crash at any moment
leaves the commit before. There is one copy in flight: a save that is due before the last one is committed waits for it.

A store that does not take a checkpoint does not end the training, which would lose more: the failure is told, the last commit stays, and
another save follows half a minute later. Only at the end of a run there is nothing left but to fail.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpointer.snapshot import Snapshot
from trainjobs.checkpointer.trained import Trained
from trainjobs.checkpointer.uploader import Uploader
from trainjobs.checkpoints import Checkpoints, Commit, Corrupt, Fenced, open_store
from trainjobs.world import World, outcome

AGAIN = 30.0  # seconds after a save that failed
Happened = Commit | JobError | None  # what became of a save: it is there, or it is lost, or there is no news


@dataclass
class Pending:
    """A checkpoint on its way."""

    prefix: str
    commit: Mapping[str, Any]  # arguments of Checkpoints.commit but for the digests
    began: float
    committing: bool = False


class Saver:
    """The checkpoints that one attempt of a run takes. Every rank must make the same calls, in the same order."""

    def __init__(
        self,
        uri: str,
        keep: Keep,
        trained: Trained,
        world: World,
        identity: Mapping[str, Any],
        scratch: Path,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins the attempt. `identity` says what the weights belong to; `scratch` is a local folder."""
        self.checkpoints = Checkpoints(open_store(uri), keep=keep)
        self._trained, self._world, self._identity = trained, world, {**identity, "world": world.size}
        self._now = now
        self._uploader, self._scratch = Uploader(uri, keep), scratch
        self._snapshot = Snapshot(scratch, world.device, int(os.environ.get("LOCAL_WORLD_SIZE", world.size)))
        self._pending: Pending | None = None
        self._highest = -1  # the last step that was tried in this attempt
        self._failed_at: float | None = None
        self._uncopied: JobError | None = None  # why this rank could not copy its part of what is pending
        self.attempt: int = world.lead(self.checkpoints.begin)
        self.commit: Commit | None = None  # what a run that fails now would go on from
        self.failure: JobError | None = None  # of the last save
        self.holding = False  # a save failed a moment ago: those that are due are left out for a while
        self.pace = 0.0  # seconds per byte of the last save, from its beginning to its commit

    @property
    def size(self) -> int:
        """Bytes of this rank's part of a checkpoint, as of the last save."""
        return self._snapshot.size

    def save(self, metrics: Mapping[str, float]) -> Happened:
        """Begin to save the present state; `settle` before it changes. Returns what became of the save before."""
        before = self.finish()
        state = self._trained.state
        if state.step <= self._highest:  # after going back: what a save that failed left under this name is not touched
            self.attempt = self._world.lead(self.checkpoints.begin)
        self._highest = state.step
        prefix = self.checkpoints.prefix(state.step, self.attempt)
        metadata = {**self._identity, **self._trained.contents(), **self._trained.states()}
        told = {"attempt": self.attempt, "step": state.step, "samples": state.samples, "metadata": metadata, "metrics": dict(metrics)}
        self._pending = Pending(prefix, told, self._now())
        files = {name: self._trained.parts(name, own=True) for name in self._trained.engines}
        beside = self._trained.beside if self._world.leads else {}
        upload = partial(self._uploader.upload, prefix, self._world.rank, self.attempt, beside=beside)
        try:
            self._uncopied = None
            self._snapshot.take(files, upload)
        except OSError as error:
            why, how = error.strerror or str(error), "free memory, or space on the disk of the run folder"
            self._uncopied = JobError("GTJ0211", "a checkpoint cannot be copied", where=str(self._scratch), why=why, how=how)
        return before

    def settle(self) -> None:
        """What is being saved may change from here on."""
        if self._pending is not None:
            self._snapshot.settle()

    def report(self) -> tuple[float, float, float]:
        """(this rank has uploaded, or failed to; rank 0's commit is there; rank 0 does not try again yet), to be summed over the ranks for
        `hear`."""
        waits = self._world.leads and self.again() is False
        if self._pending is None or not (self._uncopied or self._uploader.ready()):
            return 0.0, 0.0, float(waits)
        return (0.0, 1.0, float(waits)) if self._pending.committing else (1.0, 0.0, float(waits))

    def hear(self, uploaded: float, committed: float, waits: float) -> Happened:
        """Go on with what is pending, given the sums of what all ranks reported."""
        self.holding = waits > 0
        if self._pending is not None and not self._pending.committing and uploaded == self._world.size:
            return self._commit()
        if self._pending is not None and self._pending.committing and committed:
            return self._conclude()
        return None

    def finish(self, *, required: bool = False) -> Happened:
        """Wait until nothing is pending. `required`: raises when the last save failed."""
        happened = self._commit() if self._pending is not None and not self._pending.committing else None
        if self._pending is not None:
            happened = self._conclude()
        if required and self.failure is not None:
            raise self.failure
        return happened

    def again(self) -> bool | None:
        """After a failure, whether it is time to try again, by this rank's clock; None when all is well."""
        return None if self._failed_at is None or self._pending is not None else self._now() - self._failed_at >= AGAIN

    def close(self) -> None:
        self._uploader.close()
        self._snapshot.close()

    def _commit(self) -> Happened:
        """All ranks have uploaded, or will have in a moment: rank 0 commits."""
        assert self._pending is not None
        answers = self._world.gather(outcome(self._uploaded))
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if errors:
            return self._give_up(errors)
        self._pending.committing = True
        if self._world.leads:
            self._uploader.commit(self._pending.prefix, {**self._pending.commit, "digests": answers})
        return None

    def _uploaded(self) -> Any:
        """The digest of this rank's part, or what became of it."""
        if self._uncopied is not None:
            return self._uncopied
        self._snapshot.wait()
        return self._uploader.answer()

    def _conclude(self) -> Happened:
        assert self._pending is not None
        answer = self._world.share(self._uploader.answer() if self._world.leads else None)
        if isinstance(answer, Exception):
            return self._give_up([answer])
        self.commit, self.failure, self._failed_at = answer, None, None
        self.pace = (self._now() - self._pending.began) / max(1, self.size)
        self._pending = None
        return self.commit

    def _give_up(self, errors: list[Exception]) -> Happened:
        """This save is lost. Raises what another save would not mend."""
        self._pending = None
        for error in errors:
            if not isinstance(error, JobError) or isinstance(error, Fenced | Corrupt):
                raise error
        assert isinstance(errors[0], JobError)
        self.failure, self._failed_at = errors[0], self._now()
        return errors[0]
