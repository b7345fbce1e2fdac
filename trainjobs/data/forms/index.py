"""What is found out of a data set once: of each object, or each block, some arrays; shared among ranks, kept on disk.

Each is a file of NumPy's in `cache/index/`, named by a digest of what it was made of (the place, the object, its tag, the version of
what is found out): an index that was interrupted goes on, and data that grows by a shard costs that shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from trainjobs.api.errors import JobError
from trainjobs.data.cache import cached
from trainjobs.data.places.place import ALONE, Object, Place, Ranks

Arrays = dict[str, npt.NDArray[Any]]
Say = Callable[[str], None]

VERSION = 1  # of what every form finds out; part of the files' names
EVERY = 2.0  # seconds between two words about how far it is
THREADS = 8  # most of the time is spent waiting for answers


def silent(_: str) -> None:
    """To whom nothing is said."""


def key_of(place: Place, found: Object, *settings: object) -> str:
    return json.dumps([place.uri, found.name, found.size, found.tag, *settings])


@dataclass(frozen=True)
class Indexing:
    """Who makes an index, and where it is kept."""

    cache: Path
    ranks: Ranks = ALONE
    say: Say = silent
    clock: Callable[[], float] = time.monotonic

    def of(self, keys: Sequence[str], make: Callable[[int], Arrays], noun: str = "shards") -> list[Arrays]:
        """What `make` finds of number 0, 1, ..., under each key; on every rank all of it. An array `rows`, one number, is counted aloud.

        Rank r makes r, r + size, ... and the ranks exchange what they have. The first JobError, in the order of keys, is raised on
        every rank."""
        mine, size = range(self.ranks.rank, len(keys), self.ranks.size), self.ranks.size
        started = said = self.clock()
        done, rows, lock = 0, 0, threading.Lock()

        def one(number: int) -> Arrays | JobError:
            nonlocal said, done, rows
            try:
                arrays = _kept(self.cache / "index" / f"{digest(keys[number])}.npz", lambda: make(number))
            except JobError as error:
                return error
            with lock:
                done += 1
                rows += int(arrays["rows"]) if "rows" in arrays else 0
                if (now := self.clock()) - said >= EVERY:
                    said = now
                    share = f" (this rank's share, one of {size})" if size > 1 else ""
                    self.say(f"indexing the data: {done:,} of {len(mine):,} {noun}{share}, {rows:,} samples, {now - started:.0f} s")
            return arrays

        with ThreadPoolExecutor(min(THREADS, max(1, len(mine)))) as pool:
            parts = self.ranks.gather(list(pool.map(one, mine)))
        whole: list[Arrays] = []
        for number in range(len(keys)):
            if isinstance(found := parts[number % size][number // size], JobError):
                raise found
            whole.append(found)
        return whole


def _kept(path: Path, make: Callable[[], Arrays]) -> Arrays:
    for _ in range(2):
        made: list[Arrays] = []

        def write(file: BinaryIO, made: list[Arrays] = made) -> None:
            made.append(make())
            np.savez(file, **made[0])  # type: ignore[arg-type]  # names are never those of its own parameters

        cached(path, write)
        if made:
            return made[0]
        with contextlib.suppress(OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile), np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
        path.unlink(missing_ok=True)  # a disk that lost part of it
    raise JobError("GTJ0114", "the index of the data cannot be read", where=os.fspath(path), how="look at the disk, or remove the file")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def packed(value: Any) -> npt.NDArray[np.uint8]:
    """Any JSON as an array."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def unpacked(array: npt.NDArray[np.uint8]) -> Any:
    return json.loads(array.tobytes())


class Names:
    """Many names in one array of bytes: uint8, and the int64 ends of each. 10 to 30 bytes a name, instead of 70 to 100."""

    def __init__(self, text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> None:
        self._text, self._ends = text, ends

    @staticmethod
    def arrays(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64) if encoded else np.zeros(0, np.int64)
        return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> str:
        start = int(self._ends[number - 1]) if number else 0
        return self._text[start : int(self._ends[number])].tobytes().decode("utf-8", "surrogateescape")
