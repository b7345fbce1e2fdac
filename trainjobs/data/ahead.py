"""Batches prepared beside the training thread, a few ahead, so that it does not wait for what is read, fetched and decoded.

What is prepared follows from the positions alone, so a batch is the same with any number of threads, and it does not matter what was
prepared in vain: where a run goes back, it asks for other positions, and what was made for the old ones is dropped.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from trainjobs.data.source import Conditional, Counted, DataInfo, Shaped, Source, squares
from trainjobs.noise import Noise
from trainjobs.world import World

Late = Callable[[float], None]

BYTES = 2**30  # of prepared batches, beyond the two that there are always
LATE = 5.0  # seconds that a batch is waited for before that is told, and between two times that it is
FAR = 1024  # samples that a source is told of before they are prepared, so that they are fetched by then


@runtime_checkable
class Preparing(Source, Protocol):
    """A source of which a batch takes time: batch(positions, seed, noise) is made(rows(positions, seed), noise)."""

    def rows(self, positions: Tensor, seed: int) -> Any:
        """Without randomness; several threads may ask at once."""
        ...

    def made(self, rows: Any, noise: Noise) -> dict[str, Tensor]: ...


@runtime_checkable
class Fetching(Protocol):
    """A source that can begin to fetch what will be asked for."""

    def coming(self, positions: Tensor, seed: int) -> None:
        """These positions (int64 [n]) will be asked for, behind those that were told before. Returns at once."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A source that works beside its reader."""

    def close(self) -> None: ...


@runtime_checkable
class Expecting(Protocol):
    """A source that wants to know what it will be asked for."""

    def depth(self, positions: Tensor) -> int:
        """How many batches as large as that it wants to be told of."""
        ...

    def expect(self, coming: Sequence[Tensor], seed: int) -> None:
        """The positions (int64 [B]) of the next batches, the nearest first. Only these are wanted now."""
        ...

    def tell(self, late: Late) -> None:
        """To be called by whoever asks for a batch and has to wait for it, with the seconds that this has taken, every LATE seconds."""
        ...


class Ahead:
    """`source`, with `threads` that prepare its batches; without any, a batch is prepared when it is asked for. An error in a batch is
    raised to whoever asks for that batch."""

    def __init__(self, source: Preparing, threads: int, every: float = LATE) -> None:
        self._source, self._threads, self._every = source, threads, every
        self._late: Late | None = None
        self._pool = ThreadPoolExecutor(threads, "data") if threads else None
        self._prepared: dict[tuple[bytes, int], Future[Any]] = {}
        self._told: set[tuple[bytes, int]] = set()  # of those that come, what the source knows of

    @property
    def info(self) -> DataInfo:
        return self._source.info

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        found = self._prepared.pop(_key(positions, seed), None)
        if found is None and self._late is not None and self._pool is not None:
            found = self._pool.submit(self._source.rows, positions, seed)
        rows = self._source.rows(positions, seed) if found is None else self._awaited(found)
        return self._source.made(rows, noise)

    def tell(self, late: Late) -> None:
        self._late = late

    def _awaited(self, found: Future[Any]) -> Any:
        began = time.monotonic()
        while self._late is not None and found not in wait([found], self._every).done:
            self._late(time.monotonic() - began)
        return found.result()

    @property
    def squares(self) -> Source:
        return squares(self._source) if isinstance(self._source, Shaped) else self

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self._source.heldout_batch(indices)

    def units(self, positions: Tensor, seed: int) -> Tensor:
        assert isinstance(self._source, Counted), "asked of sources of records only"
        return self._source.units(positions, seed)

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        return self._source.conditions(rows) if isinstance(self._source, Conditional) else {}

    def depth(self, positions: Tensor) -> int:
        """Those that are prepared, and, where the source fetches, those up to FAR samples."""
        return max(self._ready(positions), -(-FAR // max(1, len(positions))) if isinstance(self._source, Fetching) else 0)

    def _ready(self, positions: Tensor) -> int:
        """How many are prepared ahead: two for each thread, so that none waits for the step to ask, in BYTES of memory."""
        size = len(positions) * math.prod(self.info.shape)
        return max(2, min(2 * self._threads, BYTES // max(1, size))) if self._threads else 0

    def expect(self, coming: Sequence[Tensor], seed: int) -> None:
        if coming and isinstance(self._source, Fetching):
            every = {_key(positions, seed): positions for positions in coming}
            if new := [positions for key, positions in every.items() if key not in self._told]:
                self._source.coming(torch.cat(new), seed)
            self._told = set(every)
            coming = coming[: self._ready(coming[0])]
        if self._pool is None:
            return
        wanted = {_key(positions, seed): positions for positions in coming}
        for key in self._prepared.keys() - wanted.keys():
            self._prepared.pop(key).cancel()
        for key, positions in wanted.items():
            if key not in self._prepared:
                self._prepared[key] = self._pool.submit(self._source.rows, positions, seed)

    def close(self) -> None:
        """Prepare and fetch nothing more."""
        self.expect((), 0)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        close(self._source)


def close(source: Source) -> None:
    """The end of what a source does beside its reader, where it does anything; what is on its way goes on, and nobody waits for it."""
    if isinstance(source, Closing):
        source.close()


def ahead(source: Source, asked: int | None, world: World) -> Source:
    """The source, prepared beside the steps where a batch of it takes time; `asked` is data.workers. Every rank calls this."""
    here = platform.node()
    processes = world.gather(here).count(here)
    return Ahead(source, threads(asked, processes)) if isinstance(source, Preparing) else source


def threads(asked: int | None, processes: int) -> int:
    """How many prepare data in a process, of which `processes` share the machine: what data.workers says, or the process's share of the
    cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked if asked is not None else max(1, cores // processes)


def _key(positions: Tensor, seed: int) -> tuple[bytes, int]:
    return positions.numpy().tobytes(), seed
