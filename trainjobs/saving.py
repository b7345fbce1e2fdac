"""Taking a checkpoint and going back to one: what the workers do together around the commit log.

Saving: every rank writes its part into a scratch folder and uploads it, rank 0 hears all digests and commits. Going back: rank 0
names a commit, every rank fetches and verifies what it needs; if any of them finds damage, the commit is quarantined and the one
before is taken. Both end on every rank alike, with the same result or the same error.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, Commit, Corrupt, locate
from trainjobs.engine import Engine
from trainjobs.state import Ema, State
from trainjobs.world import World


@dataclass(frozen=True)
class Trained:
    """Everything that a checkpoint holds."""

    engines: Mapping[str, Engine]
    state: State
    ema: Ema | None


class Saver:
    """Checkpoints of one attempt of one run."""

    def __init__(self, checkpoints: Checkpoints, trained: Trained, world: World, identity: Mapping[str, Any], scratch: Path) -> None:
        """`identity` says what the weights belong to (`model`, a digest; `stage`; `versions`); `scratch` is a local folder."""
        self._checkpoints, self._trained, self._world, self._scratch = checkpoints, trained, world, scratch
        self._identity = {**identity, "world": world.size}
        self.attempt = self._together(checkpoints.begin)

    def save(self, metrics: Mapping[str, float]) -> Commit:
        """Commit the present state. Every rank must call it at the same step."""
        state = self._trained.state
        prefix = self._checkpoints.prefix(state.step, self.attempt)
        collected = {name: engine.collect() for name, engine in self._trained.engines.items()}
        outcomes = self._world.gather(self._attempt(self._put, prefix, collected))
        _raise_first(outcomes)
        digests = [digest for digest, _ in outcomes]
        commit: Commit = self._together(self._commit, prefix, digests, dict(metrics))
        return commit

    def retain(self) -> None:
        """Delete what retention no longer keeps; rank 0 does it. What cannot be deleted now is tried again after the next commit."""
        if self._world.leads:
            try:
                self._checkpoints.retain()
            except JobError as error:  # a failed write is one, too
                print(f"retention: {error}", file=sys.stderr, flush=True)

    def restore(self, source: str, since: float, warn: Callable[[JobError], None]) -> Commit | None:
        """Go back to a sound commit, and return it, or None when there never was one. Rank 0 `warn`s of each that it passes over.

        `source` is `latest`, `none` or a URI. The last two say where a run starts: once it has committed something of its own (since
        `since`, seconds since the epoch), a restart of its workers goes on from that. JobError GTJ0209 when damage took all there was:
        to begin again at step 0 is the user's decision.
        """
        while True:
            commit, elsewhere = self._together(self._choose, source, since)
            if commit is None:
                return None
            self._check(commit)
            with tempfile.TemporaryDirectory(dir=self._scratch, prefix="restore-") as name:
                folder = Path(name)
                damage = self._world.gather(self._attempt(self._fetch, commit, folder, source if elsewhere else None))
                found = next((error for _, error in damage if isinstance(error, Corrupt)), None)
                if found is None:
                    _raise_first(damage)
                    self._load(folder)
                    self._trained.state.step, self._trained.state.samples = commit.step, commit.samples
                    self._together(self._warn_of_unreadable, commit, warn)
                    return cast(Commit, commit)
            if elsewhere:
                raise JobError(
                    "GTJ0209",
                    f"checkpoint at step {commit.step} is corrupt",
                    where=found.file,
                    why=f"{found.why}; the manifest names this one checkpoint, so no other is taken",
                    how="set checkpoints.resumeFrom to latest, or to another checkpoint",
                )
            self._together(self._set_aside, commit, found, warn)

    def _commit(self, prefix: str, digests: list[str], metrics: dict[str, float]) -> Commit:
        state = self._trained.state
        return self._checkpoints.commit(
            prefix,
            attempt=self.attempt,
            step=state.step,
            samples=state.samples,
            digests=digests,
            metadata=dict(self._identity),
            metrics=metrics,
        )

    def _choose(self, source: str, since: float) -> tuple[Commit | None, bool]:
        """The commit to go back to, and whether it is one that a URI names, which may be another run's."""
        newest, begins = self._checkpoints.newest(), 0.0 if source == "latest" else since
        if newest is not None and newest.committed_at >= begins:
            return newest, False
        corrupt = [status for status in self._checkpoints.commits() if status.state == "corrupt" and status.commit.committed_at >= begins]
        unreadable = self._checkpoints.unreadable() if source == "latest" else []
        if corrupt or unreadable:
            raise JobError(
                "GTJ0209",
                "no checkpoint of this run is whole",
                where=", ".join([*(status.commit.prefix for status in corrupt), *unreadable]),
                why=corrupt[-1].why if corrupt else "these records of the log are damaged, and each may have been a checkpoint's",
                how="look at the disk; nothing was deleted. gtj run --fresh starts again at step 0 and keeps this run beside it",
            )
        return (None, False) if source in ("latest", "none") else (locate(source)[1], True)

    def _set_aside(self, commit: Commit, damage: Corrupt, warn: Callable[[JobError], None]) -> None:
        self._checkpoints.quarantine(commit, f"{damage.file}: {damage.why}")
        how = "It is set aside, the checkpoint before it is taken"
        warn(JobError("GTJ0209", f"checkpoint at step {commit.step} is corrupt", where=damage.file, why=damage.why, how=how))

    def _warn_of_unreadable(self, commit: Commit, warn: Callable[[JobError], None]) -> None:
        for key in self._checkpoints.unreadable(after=commit):
            how = f"The checkpoint of step {commit.step} is taken"
            warn(JobError("GTJ0209", "a newer checkpoint may be lost", where=key, why="this record of the log is damaged", how=how))

    def _put(self, prefix: str, collected: Mapping[str, Mapping[str, Any]]) -> str:
        try:
            with tempfile.TemporaryDirectory(dir=self._scratch, prefix="save-") as name:
                folder = Path(name)
                for network, files in collected.items():
                    (folder / network).mkdir()
                    for file, content in files.items():
                        _write(content, folder / network / file)
                if self._trained.ema is not None:
                    _write(self._trained.ema.average, folder / "ema.pt")
                return self._checkpoints.put_shard(prefix, self._world.rank, folder)
        except OSError as error:
            why, how = error.strerror or str(error), "free disk space there, or make it writable, and run again"
            raise JobError("GTJ0211", "a checkpoint cannot be written", where=str(self._scratch), why=why, how=how) from error

    def _fetch(self, commit: Commit, folder: Path, uri: str | None) -> None:
        checkpoints = self._checkpoints if uri is None else locate(uri)[0]
        checkpoints.fetch(commit, sorted({0, self._world.rank}), folder)

    def _load(self, folder: Path) -> None:
        mine = folder / f"rank-{self._world.rank}"
        for name, engine in self._trained.engines.items():
            if not self._world.leads:
                shutil.copytree(folder / "rank-0" / name, mine / name, dirs_exist_ok=True)
            engine.load(mine / name)
        if self._trained.ema is not None:
            average = torch.load(mine / "ema.pt", map_location=self._world.device, weights_only=True)
            for key, value in self._trained.ema.average.items():
                value.copy_(average[key])

    def _check(self, commit: Commit) -> None:
        """Refuse a commit that this run cannot continue."""
        theirs = commit.metadata
        if theirs.get("model") != self._identity["model"]:
            raise JobError(
                "GTJ0208",
                f"checkpoint at step {commit.step} is of another model",
                where=commit.prefix,
                why="networks, optimizers or moving average of the manifest are not those it was saved with",
                how="restore the manifest, or start afresh with gtj run --fresh",
            )
        for key, noun in (("world", "workers"), ("stage", "ZeRO stages")):
            if theirs.get(key) != self._identity[key]:
                raise JobError(
                    "GTJ0208",
                    f"checkpoint at step {commit.step} was saved with {noun} {theirs.get(key)}, this run has {self._identity[key]}",
                    where=commit.prefix,
                    why="optimizer state is partitioned by worker and stage, and this version does not convert it",
                    how="continue with the same number of workers and the same stage, or start afresh with gtj run --fresh",
                )

    def _attempt(self, act: Callable[..., Any], *arguments: Any) -> tuple[Any, Exception | None]:
        """The result of a rank's own part, or its error as a value, so that no rank leaves the others waiting."""
        try:
            return act(*arguments), None
        except (JobError, OSError) as error:
            return None, error

    def _together(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Do something on rank 0 and give every rank its result or its error."""
        result, error = self._world.share(self._attempt(act, *arguments) if self._world.leads else (None, None))
        if error is not None:
            raise error
        return result


def _write(content: object, path: Path) -> None:
    # Opened here: when torch opens the file itself, a full disk is a RuntimeError about positions in an archive.
    with path.open("wb") as file:
        torch.save(content, file)


def _raise_first(outcomes: list[tuple[Any, Exception | None]]) -> None:
    for _, error in outcomes:
        if error is not None:
            raise error
