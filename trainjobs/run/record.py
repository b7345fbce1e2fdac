"""A run's record in its checkpoint store: what the run folder holds, copied while it is written, so that it is still there when the
machine, the pods or the whole cluster are gone.

Below `<checkpoints of the run>/run/`, a folder for each attempt of a cluster (`a1`, `a2`, ...):

    <file>                                    small files that are replaced as a whole, as they were at the last look
    <file>@<generation>-<offset>.gz           a piece of a file that grows: its bytes from that offset on. A file that was written anew, as
                                              metrics.jsonl is when a run goes back, begins another generation; the highest counts

Nothing of the record is ever read by the training. Each look sends what is new; what cannot be sent is tried at the next.
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainjobs.run.progress import read
from trainjobs.stores.store import BlobStore

FOLDER = "run"
PIECE_KEY = re.compile(r"(?P<name>.+)@(?P<generation>\d{4})-(?P<offset>\d{14})\.gz")
LIMIT = 2**30  # bytes that the pieces of an attempt may take; small files go on being replaced beyond it
PIECE = 16 * 2**20  # bytes of a piece, unpacked
SMALL = 16 * 2**20  # a file that is replaced as a whole and larger is none of ours
WHOLE = ("job.json", "job.yaml", "changes.json", "versions.json", "progress.json", "failure.json", "timeline.json", "report.html")
GROWING = ("metrics.jsonl", "attempts.jsonl", "bad-samples.jsonl")
FOLDERS = ("samples", "logs", "events")


@dataclass
class Known:
    """What was sent of a file: of one that grows, which generation of it, and as far as `size`."""

    inode: int = 0
    size: int = 0
    changed: int = 0
    generation: int = 0


class Record:
    """What one process sends. `attempt` names the folder."""

    def __init__(self, run: Path, store: BlobStore, attempt: str = "a1", *, limit: int = LIMIT) -> None:
        self._run, self._store, self._at = run, store, f"{FOLDER}/{attempt}"
        self._known: dict[str, Known] = {}
        self._sent, self._limit = 0, limit
        self._begun = False

    @property
    def full(self) -> bool:
        """Whether pieces are left out from here on."""
        return self._sent >= self._limit

    def look(self) -> int:
        """Send what is new; how many objects that were. Raises StoreError, OSError: then nothing of the look counts as sent."""
        if not self._begun:
            self._known, self._sent = self._there()
            self._begun = True
        known = {name: Known(**vars(one)) for name, one in self._known.items()}
        with tempfile.TemporaryDirectory(prefix="record-") as name:
            files: list[tuple[Path, str]] = []
            size = 0
            for key, data in self._new(known):
                path = Path(name) / str(len(files))
                path.write_bytes(data)
                files.append((path, f"{self._at}/{key}"))
                size += len(data) if "@" in key else 0
            if files:
                self._store.upload(files)
        self._known, self._sent = known, self._sent + size
        return len(files)

    def _there(self) -> tuple[dict[str, Known], int]:
        """What an earlier process sent to this folder, and how much that was: what it sent in pieces begins another generation."""
        known: dict[str, Known] = {}
        size = 0
        for entry in self._store.entries(self._at):
            if match := PIECE_KEY.fullmatch(entry.key.removeprefix(f"{self._at}/")):
                before = known.setdefault(match["name"], Known())
                before.generation = max(before.generation, int(match["generation"]) + 1)
                size += entry.size
        return known, size

    def _new(self, known: dict[str, Known]) -> Iterator[tuple[str, bytes]]:
        """Key and content of every object to send; `known` becomes what is known afterwards."""
        room = self._limit - self._sent
        for name in names(self._run):
            try:
                with (self._run / name).open("rb") as file:
                    status, before = os.fstat(file.fileno()), known.setdefault(name, Known())
                    if (status.st_ino, status.st_size, status.st_mtime_ns) == (before.inode, before.size, before.changed):
                        continue
                    if not grows(name):
                        if status.st_size <= SMALL:
                            known[name] = Known(status.st_ino, status.st_size, status.st_mtime_ns)
                            yield name, file.read()
                        continue
                    if before.inode and (before.inode != status.st_ino or before.size > status.st_size):
                        before.size, before.generation = 0, before.generation + 1
                    before.inode = status.st_ino
                    file.seek(before.size)
                    while room > 0 and (data := file.read(PIECE)):
                        packed = gzip.compress(data, 6, mtime=0)
                        yield f"{name}@{before.generation:04d}-{before.size:014d}.gz", packed
                        before.size, room = before.size + len(data), room - len(packed)
                    before.changed = status.st_mtime_ns if before.size == status.st_size else 0
            except FileNotFoundError:
                continue  # it was replaced, or taken out, this very moment


def names(run: Path) -> list[str]:
    """The files of a run folder that belong to its record."""
    found = [f"{folder}/{path.name}" for folder in FOLDERS for path in sorted((run / folder).glob("[!.]*"))]
    return [name for name in (*WHOLE, *GROWING, *found) if (run / name).is_file()]


def grows(name: str) -> bool:
    return name.endswith((".jsonl", ".log")) or name.startswith("events/")


def shown(run: Path) -> list[Any]:
    """What a report shows besides curves: a change of it is a reason to write the page anew."""
    told = read(run / "progress.json")
    return [told.get("phase"), told.get("checkpoint"), sorted(path.name for path in (run / "samples").glob("[!.]*"))]
