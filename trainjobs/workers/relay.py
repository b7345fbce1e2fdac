"""A run whose workers do not share the driver's folder: what they leave in their own reaches it, and its wishes reach them.

On a cluster every worker has a folder in a pod of its own. What has to be known at once by all of them, whether to train and how one
ended, is a call that waits for its answer (`verdict`, `enter`, `explained`). Everything else that rank 0 writes is carried after it once a
second, and the answer says whether to leave. So the driver's folder looks as if everybody wrote into it, and whatever reads a run folder
reads a cluster's.

Nothing here knows how the two sides talk: ray_train/remote.py makes the collector an actor of Ray.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from trainjobs.api.errors import JobError
from trainjobs.run import failures, preemption, progress
from trainjobs.run.outcome import Outcome
from trainjobs.run.rewind import drop_samples
from trainjobs.workers import retries

EVERY = 1.0  # seconds
BLOCK = 4 * 2**20  # bytes of one file in one round
RECORDS = ("progress.json", "timeline.json", "attempts.jsonl", "metrics.jsonl")
FOLDERS = ("events", "samples", "logs")


class Piece(NamedTuple):
    """`data` belongs at `offset` of the file `name`, and ends it for now. At 0 it replaces the file."""

    name: str
    offset: int
    data: bytes


class Admission(NamedTuple):
    """`over`: why not to train. Else what the groups before left, by file name, and the number of this group."""

    over: JobError | None
    group: int
    records: dict[str, bytes]


Notices = dict[str, bytes]  # the driver's notices to the workers (run/preemption.py), by file name
Exchange = Callable[[list[Piece]], Notices]


class Collector:
    """The driver's side: keeps `run`, the folder of the driver that started at `driver`. Everything it knows is in there."""

    def __init__(self, run: str, driver: float) -> None:
        self._run, self._folder = Path(run), retries.Folder(Path(run), driver)

    def verdict(self, retries: int) -> Admission:
        over = self._folder.verdict(retries)
        found = {name: (self._run / name).read_bytes() for name in RECORDS if (self._run / name).exists()}
        return Admission(over, self._group(), found)

    def enter(self, account: dict[str, object]) -> None:
        failures.enter(self._run, account)

    def explained(self) -> bool:
        return self._folder.explained()

    def ended(self, outcome: Outcome) -> None:
        self._folder.ended(outcome)

    def exchange(self, group: int, pieces: list[Piece]) -> Notices:
        """Take a group's pieces; what notices there are. A group that was replaced speaks no more."""
        if group != self._group():
            return {}
        for name, offset, data in pieces:
            if (name not in RECORDS and name.split("/")[0] not in FOLDERS) or ".." in name.split("/"):
                raise ValueError(f"not a file of a run: {name!r}")
            before = went_back(self._run)
            put(self._run / name, offset, data)
            # The samples that a group before drew are here alone. progress.json comes in front of what the new one drew.
            if (back := went_back(self._run)) and back != before:
                drop_samples(self._run, back["step"])
        return {name: (self._run / name).read_bytes() for name in (preemption.STOP, preemption.REPLACE) if (self._run / name).exists()}

    def _group(self) -> int:
        return int(progress.read(self._run / "failures" / "counts").get("restarts", 0))


def went_back(run: Path) -> dict[str, int]:
    """Where and when the run last went back to a step."""
    return progress.read(run / "progress.json").get("wentBack") or {}


def put(path: Path, offset: int, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    if offset == 0:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(data)
        temporary.replace(path)
        return
    with path.open("r+b") as file:
        file.seek(offset)
        file.truncate()
        file.write(data)


class Relay:
    """Rank 0's side: while the block runs, what is new in `folder` is carried away, and notices are left in it.

    What is in the folder at first came from the driver. Raises at the end of a block that went well when the last words did not arrive.
    """

    def __init__(self, folder: Path, exchange: Exchange, every: float = EVERY) -> None:
        self._folder, self._exchange, self._every = folder, exchange, every
        self._carried = {path: known(path.stat()) for path in self._files()}
        self._over, self._trouble, self._turn = threading.Event(), "", threading.Lock()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._over.set()
        self._thread.join()
        while self.carry() and not self._trouble:
            pass
        if self._trouble and error is None:
            raise RuntimeError(self._trouble)

    def carry(self) -> int:
        """One round; how many pieces were new. An exchange that fails is told once, and its pieces are carried by the next."""
        with self._turn:
            carried = dict(self._carried)
            pieces = list(self._new(carried))
            try:
                for name, notice in self._exchange(pieces).items():
                    progress.replace(self._folder / name, notice.decode())
            except Exception as error:
                trouble = f"the driver cannot be told how far the training is: {type(error).__name__}: {error}"
                if trouble != self._trouble:
                    print(trouble, flush=True)
                self._trouble = trouble
            else:
                self._carried, self._trouble = carried, ""
            return len(pieces)

    def _new(self, carried: dict[Path, Known]) -> Iterator[Piece]:
        for path in self._files():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                now, before = known(os.fstat(file.fileno())), carried.get(path)
                if now == before:
                    continue
                # Only what is never written over is carried in parts: the number of an inode comes again.
                parts = path.suffix != ".json" and before is not None and before.inode == now.inode and before.size <= now.size
                offset = before.size if parts and before else 0
                file.seek(offset)
                data = file.read(BLOCK)
                carried[path] = now._replace(size=offset + len(data))
                yield Piece(path.relative_to(self._folder).as_posix(), offset, data)

    def _files(self) -> list[Path]:
        found = [path for folder in FOLDERS for path in sorted((self._folder / folder).glob("[!.]*"))]
        return [path for path in (*(self._folder / name for name in RECORDS), *found) if path.is_file()]

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self.carry()


class Known(NamedTuple):
    """Which state of a file was carried: as far as `size`."""

    inode: int
    size: int
    changed: int


def known(status: os.stat_result) -> Known:
    return Known(status.st_ino, status.st_size, status.st_mtime_ns)
