"""Objects of a bucket on this machine's disk, up to a limit, shared by its processes: what was used longest ago is dropped first.

Room is made before anything is fetched (ledger.py), for all objects of a `hold` or for none: two that wait for each other's room would
wait for ever. What is fetched ahead is dropped after what has been used, and never to make room for more of its kind.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from threading import BoundedSemaphore, Lock, Thread
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.data.places.claims import Claim, Counts, room
from trainjobs.data.places.crating import Crating
from trainjobs.data.places.ledger import ledger
from trainjobs.data.places.place import Object, Place
from trainjobs.data.places.refusals import FULL, cut, in_use, too_large, unwritable

FETCHERS = 16  # objects on their way at a time
LARGE, FEW = 8 << 20, 4  # of those that are fetched in ranges, which are several requests each, no more than so many
KEYS = 4096  # of objects that were held lately
LOOK = 0.05  # seconds between two looks at what other processes did


class DiskShelf:
    """`limit` in bytes of the disk; None: half of what is free, with what is here already counted as free. `wait`: seconds for which a
    `hold` waits until others release what it needs the room of. JobError GTJ0114 when the folder cannot be used."""

    def __init__(self, folder: Path, limit: int | None, *, wait: float = 600.0, now: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._told, self._wait, self._now = folder, limit, wait, now
        with self._writing():
            self._ledger = ledger(folder)
            self.limit = (shutil.disk_usage(folder).free + self._ledger.taken) // 2 if limit is None else limit
            self._ledger.trim(self.limit)
        self._crating = Crating(folder, self._ledger, self.limit, wait, now)
        self._lock, self._claiming, self._large = Lock(), Lock(), BoundedSemaphore(FEW)
        self._pending: dict[str, tuple[Place, Object]] = {}  # to be fetched ahead, in order
        self._fetchers = 0
        self._last: dict[str, Sequence[Object]] = {}  # what a place told last, by its URI; and its keys
        self._soon: dict[str, frozenset[str]] = {}
        self._again: set[str] = set()  # of these, those that were held since
        self._failures: dict[str, JobError] = {}  # of fetching ahead
        self._key = lru_cache(KEYS)(_key)

    def __reduce__(self) -> tuple[Any, ...]:
        return (DiskShelf, (self._folder, self._told))

    @property
    def counts(self) -> Counts:
        """Of this process."""
        return self._ledger.counts

    @contextmanager
    def hold(self, place: Place, objects: Sequence[Object]) -> Iterator[list[Path]]:
        keys = ["" if each.path else self._key(place, each) for each in objects]
        wanted = {key: each for key, each in zip(keys, objects, strict=True) if key}
        with self._lock:
            for key in wanted:
                self._pending.pop(key, None)
                self._failures.pop(key, None)
        if sum(room(each.size) for each in wanted.values()) > self.limit:
            raise too_large(place, [*wanted.values()], self.limit)
        held = self._held(place, wanted) if wanted else []
        try:
            yield [each.path or self._ledger.path(key) for key, each in zip(keys, objects, strict=True)]
        finally:
            if held:
                self._again.update(self._soon.get(place.uri, frozenset()).intersection(held))
                self._ledger.release(held)

    def ahead(self, place: Place, objects: Sequence[Object]) -> None:
        """What was told last of a place is kept after it was held, too: a block serves many batches. What is in it no more is kept as long
        as other processes want it."""
        if objects == self._last.get(place.uri):
            return
        self._last[place.uri] = objects
        try:
            wanted = {self._key(place, each): (place, each) for each in objects if not each.path and room(each.size) <= self.limit}
        except JobError:  # the place does not answer: for the `hold` to meet
            return
        with self._lock:
            before = self._soon.get(place.uri, frozenset())
            self._soon[place.uri] = frozenset(wanted)
            gone, passed = before.difference(wanted), self._again.intersection(before).difference(wanted)
            self._again -= gone
            for key in gone:
                self._pending.pop(key, None)
            self._ledger.want(wanted.keys() - before, passed, gone - passed)
            for key in (each for each in wanted if each not in before):
                self._pending[key] = wanted[key]
            more = min(FETCHERS, len(self._pending)) - self._fetchers
            self._fetchers += max(0, more)
        for _ in range(more):
            # As daemons: a run that ends does not wait for a bucket that does not answer.
            Thread(target=self._fetch_ahead, name="ahead", daemon=True).start()

    def contents(self, place: Place, objects: Sequence[Object]) -> list[bytes]:
        """JobErrors as of `hold`."""
        keys = [_key(place, each) for each in objects]
        found = self._crating.contents(place, dict(zip(keys, objects, strict=True)))
        return [found[key] for key in keys]

    def soon(self, place: Place, objects: Sequence[Object]) -> None:
        try:
            self._crating.soon(place, {_key(place, each): each for each in objects if room(each.size) <= self.limit // 2})
        except JobError:  # the place does not answer: for `contents` to meet
            return

    def close(self) -> None:
        """Nothing more is fetched ahead; what is on its way goes on."""
        self._crating.close()
        with self._lock:
            self._pending.clear()
            told, self._soon, self._last = [*self._soon.values()], {}, {}
        for keys in told:
            self._ledger.want((), keys)  # and who waits for room looks again

    def _held(self, place: Place, wanted: Mapping[str, Object]) -> list[str]:
        """The keys, all of them held."""
        held: list[str] = []
        left, waits = dict(wanted), -1.0
        try:
            while left:
                self._raise_failure(left)
                with self._writing():
                    claim = self._ledger.claim({key: each.size for key, each in left.items()}, self.limit)
                if claim is None:
                    self._ledger.release(held)
                    held, left = [], dict(wanted)
                    waits = self._now() if waits < 0 else waits
                    if self._now() - waits > self._wait:
                        raise in_use(self._folder, [*wanted.values()], self.limit, self._wait)
                    self._ledger.wait(LOOK)
                    continue
                held, waits = [*held, *claim.here], -1.0
                self._fetch(place, {key: left[key] for key in claim.mine})
                held += claim.mine
                left = {key: left[key] for key in claim.others}
                if left:
                    self._ledger.wait(LOOK)
        except BaseException:
            self._ledger.release(held)
            raise
        return held

    def _raise_failure(self, keys: Mapping[str, Object]) -> None:
        """What ended a fetch ahead that a hold waited for ends the hold: patience is not asked for twice."""
        with self._lock:
            failed = [error for key in keys if (error := self._failures.pop(key, None))]
        if failed:
            raise failed[0]

    def _fetch(self, place: Place, mine: Mapping[str, Object]) -> None:
        """All that was claimed, several at a time; or none of it is held, and the first error raised."""
        if not mine:
            return
        left = dict(mine)
        try:
            if len(mine) == 1:
                ((key, each),) = mine.items()
                self._fetch_one(place, key, each)
                self._ledger.done(key, ahead=False)
                left.clear()
                return
            with ThreadPoolExecutor(min(FETCHERS, len(mine)), thread_name_prefix="shelf") as pool:
                futures = {key: pool.submit(self._fetch_one, place, key, each) for key, each in mine.items()}
                try:
                    for key, future in futures.items():
                        future.result()
                        self._ledger.done(key, ahead=False)
                        del left[key]
                finally:
                    pool.shutdown(cancel_futures=True)
        except BaseException as error:
            self._ledger.release([key for key in mine if key not in left])
            self._ledger.failed(*left)
            if isinstance(error, OSError):
                raise unwritable(self._folder, error) from error
            raise

    def _fetch_one(self, place: Place, key: str, wanted: Object) -> None:
        """Into the partial file of a claimed object. OSError when it cannot be written."""
        partial = self._ledger.partial(key)
        for again in (False, True):
            try:
                partial.unlink(missing_ok=True)  # a dead process's
                with self._large if wanted.size > LARGE else nullcontext():
                    place.fetch(wanted, partial)
                _synced(partial)
                break
            except OSError as error:
                partial.unlink(missing_ok=True)
                # Somebody else fills the disk: what nobody needs now is given back, once.
                if again or error.errno not in FULL or not self._ledger.drop(room(wanted.size)):
                    raise
        size = partial.stat().st_size
        if size != wanted.size:
            raise cut(place, wanted, size)

    def _fetch_ahead(self) -> None:
        """What is pending, until nothing is. Errors are for the `hold` that will fetch it itself, or waits for it already."""
        while True:
            with self._claiming:  # in order: whose turn it is gets the room
                with self._lock:
                    key = next(iter(self._pending), None)
                    if key is None:
                        self._fetchers -= 1
                        return
                    place, wanted = self._pending[key]
                try:
                    claim = self._ledger.claim({key: wanted.size}, self.limit, ahead=True)
                except OSError:  # for the `hold` to meet
                    claim = Claim((), (), (key,))
                if claim is not None:
                    with self._lock:
                        self._pending.pop(key, None)
            if claim is None:
                self._ledger.wait(1.0)
            elif claim.mine:
                self._fetch_claimed(place, key, wanted)

    def _fetch_claimed(self, place: Place, key: str, wanted: Object) -> None:
        try:
            self._fetch_one(place, key, wanted)
            self._ledger.done(key, ahead=True)
        except BaseException as error:
            with self._lock:
                if isinstance(error, JobError):
                    self._failures[key] = error  # before a hold can claim it
            self._ledger.failed(key)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self._folder, error) from error


def _key(place: Place, wanted: Object) -> str:
    """Of where an object lies and which contents it has there: another pattern that names it finds it here, too."""
    return hashlib.sha256(json.dumps([place.where(wanted), wanted.tag]).encode()).hexdigest()[:32]


def _synced(path: Path) -> None:
    """A power cut must not leave an object's name with other contents than its own."""
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
