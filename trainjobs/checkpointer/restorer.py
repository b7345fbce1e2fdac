"""Going back to a checkpoint, by any number of workers and at any ZeRO stage.

Files say which elements of which tensor they hold (checkpoints/tensors.py), and each rank knows which it needs. Where workers and stage are
those that saved, a rank reads the files of its own rank, and every bit is as it was; else it reads those that overlap with its part. There
is no conversion, and nothing is written.

Rank 0 names a commit, every rank fetches and verifies what it needs; if any finds damage, the commit is quarantined and the one before is
taken. It ends on every rank alike, with the same result or the same error.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from trainjobs.api.errors import JobError
from trainjobs.checkpointer.matching import OURS, Move, begins_anew, match, mismatch, resettable
from trainjobs.checkpointer.trained import Trained
from trainjobs.checkpoints import Checkpoints, Commit, Corrupt, locate
from trainjobs.checkpoints.tensors import INDEX, ITEM, SUFFIX, Slice, decode_index, read_layout
from trainjobs.engine.parts import DTYPES
from trainjobs.world import World, outcome


@dataclass(frozen=True)
class Restorer:
    """`identity` is what `Saver` was given; `reset` allows to begin with a new optimizer state; `scratch` is a local folder."""

    checkpoints: Checkpoints
    trained: Trained
    world: World
    identity: Mapping[str, Any]
    scratch: Path
    reset: bool = False

    def restore(self, source: str, since: float, warn: Callable[[JobError], None], *, before: Commit | None = None) -> Commit | None:
        """Go back to a sound commit, and return it, or None when there never was one. Rank 0 `warn`s of each that it passes over.

        `source` is `latest`, `none` or a URI. The last two say where a run starts: once it has committed something of its own (since
        `since`, seconds since the epoch), a restart of its workers goes on from that. JobError GTJ0209 when damage took all there was:
        to begin again at step 0 is the user's decision. GTJ0208 for a checkpoint of other tensors. With `before`, a commit of an earlier
        step than that one's, if there is any.
        """
        while True:
            commit, elsewhere = self.world.lead(self._choose, source, since, before)
            if commit is None:
                return None
            with tempfile.TemporaryDirectory(dir=self.scratch, prefix="restore-") as name:
                moves = outcome(self._read, commit, source if elsewhere else None, Path(name))
                errors = [error for error in self.world.gather(moves if isinstance(moves, Exception) else None) if error is not None]
                damage = next((error for error in errors if isinstance(error, Corrupt)), None)
                if damage is None:
                    for error in errors:
                        raise error
                    self._fill(commit, moves, Path(name))
                    self.trained.state.step, self.trained.state.samples = commit.step, commit.samples
                    self.world.lead(self._warn, commit, warn)
                    return cast(Commit, commit)
            if elsewhere:
                raise JobError(
                    "GTJ0209",
                    f"checkpoint at step {commit.step} is corrupt",
                    where=damage.file,
                    why=f"{damage.why}; the manifest names this one checkpoint, so no other is taken",
                    how="set checkpoints.resumeFrom to latest, or to another checkpoint",
                )
            self.world.lead(self._set_aside, commit, damage, warn)

    def _choose(self, source: str, since: float, before: Commit | None) -> tuple[Commit | None, bool]:
        """The commit to go back to, and whether it is one that a URI names, which may be another run's."""
        if before is not None:
            earlier = [
                status.commit for status in self.checkpoints.commits() if status.state == "live" and status.commit.step < before.step
            ]
            if earlier:
                return earlier[-1], False
        newest, begins = self.checkpoints.newest(), 0.0 if source == "latest" else since
        if newest is not None and newest.committed_at >= begins:
            return newest, False
        corrupt = [status for status in self.checkpoints.commits() if status.state == "corrupt" and status.commit.committed_at >= begins]
        unreadable = self.checkpoints.unreadable() if source == "latest" else []
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
        self.checkpoints.quarantine(commit, f"{damage.file}: {damage.why}")
        how = "It is set aside, the checkpoint before it is taken"
        warn(JobError("GTJ0209", f"checkpoint at step {commit.step} is corrupt", where=damage.file, why=damage.why, how=how))

    def _warn(self, commit: Commit, warn: Callable[[JobError], None]) -> None:
        for key in self.checkpoints.unreadable(after=commit):
            how = f"The checkpoint of step {commit.step} is taken"
            warn(JobError("GTJ0209", "a newer checkpoint may be lost", where=key, why="this record of the log is damaged", how=how))

    def _read(self, commit: Commit, uri: str | None, folder: Path) -> list[Move]:
        """Fetch what this rank needs into `folder`, and say what goes where. Raises Corrupt; GTJ0208 when it does not fit."""
        checkpoints = self.checkpoints if uri is None else locate(uri)[0]
        for engine in self.trained.engines.values():
            engine.reach(commit.step - 1)  # what slept in the last step has no state there, and what wakes now begins with none
        misfit = begins_anew(commit, self.trained.contents(), self.identity, self.reset)
        own = self.world.rank if commit.world == self.world.size else 0  # what every rank has of its own, as statistics of its batches
        uneven = any(engine.uneven for engine in self.trained.engines.values())
        indexes = {rank: read_index(checkpoints, commit, rank) for rank in (range(commit.world) if uneven else {0, own})}
        self._allocate(indexes, misfit)
        wanted = {name: self.trained.parts(name, own=False) for name in self.trained.engines}
        if misfit:
            wanted = {name: [part for part in parts if not resettable(part.slice.key)] for name, parts in wanted.items()}
        moves, missing = match(wanted, indexes, own)
        if missing and commit.world > len(indexes):
            indexes |= {rank: read_index(checkpoints, commit, rank) for rank in range(commit.world) if rank not in indexes}
            moves, missing = match(wanted, indexes, own)
        if missing:
            raise mismatch(commit, missing, indexes)
        checkpoints.fetch(commit, sorted({move.rank for move in moves}), folder)
        return moves

    def _allocate(self, indexes: Mapping[int, Mapping[str, list[Slice]]], misfit: bool) -> None:
        """The optimizer's tensors, as the checkpoint has them: a new one has none before its first step. Those of one rank are of every
        kind, unless an engine's are uneven."""
        for name, engine in self.trained.engines.items():
            kinds = {}
            for slice in (slice for index in indexes.values() for slice in index.get(f"{name}{SUFFIX}", ())):
                kind = slice.key.partition("/")[0]
                if kind not in OURS:
                    kinds[kind] = slice.dtype, not slice.shape
            if misfit:
                engine.forget()
            else:
                engine.allocate(kinds)

    def _fill(self, commit: Commit, moves: list[Move], folder: Path) -> None:
        """Every rank must call it. An average that the checkpoint has not, or that begins anew with the optimizer, is that of now."""
        averages = bool(commit.metadata.get("ema")) and any(move.part.slice.key.startswith("ema/") for move in moves)
        by_part: dict[int, list[Move]] = {}
        for move in moves:
            by_part.setdefault(id(move.part), []).append(move)
        files: dict[tuple[int, str], Mapping[str, torch.Tensor]] = {}
        for found in by_part.values():
            part = found[0].part
            values = []
            for move in found:
                key = move.rank, move.file
                files[key] = files.get(key) or opened(folder / f"rank-{move.rank}" / move.file)
                values.append(files[key][move.slice.key].narrow(0, move.overlap.source, move.overlap.length))
            if len(found) == 1 and found[0].overlap.length == part.slice.length:
                part.fill(values[0])
                continue
            whole = torch.empty(part.slice.length, dtype=part.tensor.dtype)
            for move, piece in zip(found, values, strict=True):
                whole[move.overlap.target : move.overlap.target + move.overlap.length] = piece
            part.fill(whole)
        for engine in self.trained.engines.values():
            engine.publish()
        if self.trained.ema is not None and not averages:
            self.trained.ema.restart()
        self.trained.load_states(commit.metadata)


def read_index(checkpoints: Checkpoints, commit: Commit, rank: int) -> dict[str, list[Slice]]:
    """What a rank's files hold. Raises Corrupt."""
    try:
        return decode_index(checkpoints.read(commit, rank, INDEX))
    except ValueError as error:
        raise Corrupt(f"{commit.prefix}/rank-{rank}/{INDEX}", str(error)) from error


def opened(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, flat, by key. The file is mapped, not read."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = int.from_bytes(mapped[:8], "little") + 8
    found = read_layout(mapped[:start])
    whole = torch.frombuffer(mapped, dtype=torch.uint8)
    tensors = {}
    for slice, offset in zip(found.slices, found.offsets, strict=True):
        data = whole[offset : offset + slice.bytes]
        aligned = data if offset % ITEM[slice.dtype] == 0 else data.clone()  # ours always are; the format does not ask for it
        tensors[slice.key] = aligned.view(DTYPES[slice.dtype])
    return tensors
