"""Small objects fetched by the crate: many requests at a time, one claim of room, one file, no sync.

Nothing is held while somebody waits, so nobody waits for each other: bytes are handed out, not files.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Condition, Thread

from trainjobs.api.errors import JobError
from trainjobs.data.places.claims import room
from trainjobs.data.places.crates import MEMBERS, Crates, head_size, listed, name_of, packed, size_of
from trainjobs.data.places.ledger import Ledger
from trainjobs.data.places.place import Object, Place
from trainjobs.data.places.refusals import FULL, cut, in_use, too_large, unwritable

FETCHERS = 32  # objects on their way at a time: of a bucket far away each takes 20 to 50 ms, whatever its size
PACKERS = 2  # crates that are made ahead at a time
PART = 8  # of the limit that a crate takes at most
LOOK = 0.05  # seconds between two looks at what other processes did

Wanted = Mapping[str, Object]  # by their keys


class Crating:
    """`wait`: seconds for which `contents` waits for room. JobError GTJ0114 when the folder cannot be used."""

    def __init__(self, folder: Path, ledger: Ledger, limit: int, patience: float, now: Callable[[], float]) -> None:
        self._folder, self._ledger, self._limit, self._wait, self._now = folder, ledger, limit, patience, now
        self._crates = Crates(ledger.folder)
        self._changed = Condition()
        self._pending: dict[str, tuple[Place, Object]] = {}  # to be fetched ahead, in order
        self._coming: set[str] = set()  # what this process fetches
        self._failures: dict[str, JobError] = {}  # of fetching ahead
        self._packers = 0
        self._pool: ThreadPoolExecutor | None = None

    def contents(self, place: Place, wanted: Wanted) -> dict[str, bytes]:
        """All of them, by their keys; the first error of those that cannot be had, when the others are here."""
        found = dict[str, bytes]()
        while len(found) < len(wanted):
            left = {key: each for key, each in wanted.items() if key not in found}
            here = self._read(left)
            found |= here
            left = {key: each for key, each in left.items() if key not in here}
            if not left:
                break
            with self._changed:
                failed = [error for key in left if (error := self._failures.pop(key, None))]
                if failed:  # it was waited for: patience is not asked for twice
                    raise failed[0]
                mine = [key for key in left if key not in self._coming and not self._elsewhere(key)]
                self._coming.update(mine)
                for key in mine:
                    self._pending.pop(key, None)
                if not mine:
                    self._changed.wait(LOOK)
                    continue
            try:
                found |= self._fetched(place, {key: left[key] for key in mine})
            finally:
                self._arrived(mine)
        return found

    def soon(self, place: Place, wanted: Wanted) -> None:
        with self._changed:
            for key, each in wanted.items():
                if key not in self._coming:
                    self._pending[key] = place, each
            more = min(PACKERS, -(-len(self._pending) // MEMBERS)) - self._packers
            self._packers += max(0, more)
        for _ in range(more):
            # As daemons: a run that ends does not wait for a bucket that does not answer.
            Thread(target=self._pack_ahead, name="crate", daemon=True).start()

    def close(self) -> None:
        with self._changed:
            self._pending.clear()
            pool, self._pool = self._pool, None
            self._changed.notify_all()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, wanted: Wanted) -> dict[str, bytes]:
        sizes = {key: each.size for key, each in wanted.items()}
        found, done, damaged = self._crates.read(sizes)
        if len(found) < len(sizes):
            self._crates.look()
            more, also, bad = self._crates.read({key: size for key, size in sizes.items() if key not in found})
            found, done, damaged = found | more, done | also, damaged | bad
        for crate in damaged:
            self._ledger.lose(crate)
        if done:
            self._ledger.forget(done)  # used: others may have their room
        return found

    def _elsewhere(self, key: str) -> bool:
        crate = self._crates.coming(key)
        return crate is not None and self._ledger.fetching(crate)

    def _fetched(self, place: Place, mine: Wanted) -> dict[str, bytes]:
        found, failed = dict[str, bytes](), list[JobError]()
        for group in self._groups(place, mine):
            waits = self._now()
            while (made := self._crate(place, group, ahead=False)) is None:
                if self._now() - waits > self._wait:
                    raise in_use(self._folder, [*group.values()], self._limit, self._wait)
                self._ledger.wait(LOOK)
            found |= made[0]
            failed += made[1].values()
        if failed:
            raise failed[0]
        return found

    def _groups(self, place: Place, wanted: Wanted) -> Iterable[Wanted]:
        """Crates of at most MEMBERS, and of a share of the limit."""
        group, size = dict[str, Object](), 0
        for key, each in wanted.items():
            more = size_of([each.size])
            if room(more) > self._limit:
                raise too_large(place, [each], self._limit)
            if group and (len(group) == MEMBERS or room(size + more) > self._limit // PART):
                yield group
                group, size = {}, 0
            group[key], size = each, size + more
        if group:
            yield group

    def _crate(self, place: Place, group: Wanted, *, ahead: bool) -> tuple[dict[str, bytes], dict[str, JobError]] | None:
        """What was fetched, and the errors of the others; nothing where another process makes this crate or made it meanwhile. None: there
        is no room now."""
        try:
            with self._deciding():
                self._crates.look()
                there = self._crates.has(group) | {key for key in group if self._elsewhere(key)}
                group = {key: each for key, each in group.items() if key not in there}
                if not group:
                    return {}, {}
                crate, sizes = name_of([*group]), {key: each.size for key, each in group.items()}
                size = size_of([*sizes.values()])
                claim = self._ledger.claim({crate: size}, self._limit, ahead=ahead)
                if claim is None:
                    return None
                if claim.mine:
                    try:
                        self._written(crate, listed(sizes))
                    except BaseException:
                        self._ledger.failed(crate)
                        raise
            if claim.others:  # that very crate
                self._ledger.wait(LOOK)
                return {}, {}
            if claim.here:
                if not ahead:
                    self._ledger.release(claim.here)
                if not self._crates.add(crate, self._ledger.path(crate)):
                    self._ledger.lose(crate)
                return {}, {}
            try:
                found, failed = self._together(place, group)
                if found:
                    self._packed(crate, sizes, found)
            except BaseException:
                self._ledger.failed(crate)
                raise
            if not found:
                self._ledger.failed(crate)
            self._crates.add(crate, self._ledger.path(crate))
            if not ahead and found:
                self._ledger.forget([crate])  # it is given out at once
            return found, failed
        except OSError as error:
            raise unwritable(self._folder, error) from error

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """One at a time, of all threads of all processes, looks at what there is and says what it fetches, or gives that its name: who
        looked while another did so would not find it, and fetch it too. (No lock of Locks: of two of them that threads of a process wait
        for, the system says that processes wait for each other.)"""
        with open(self._folder / "deciding", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _packed(self, crate: str, sizes: Mapping[str, int], found: Mapping[str, bytes]) -> None:
        """A crate with these contents gets its name. Until then its list stays there: the contents are written behind it."""
        data, begin = packed(sizes, found), head_size(len(found))
        self._written(crate, data, begin)
        with self._deciding():
            self._written(crate, data[:begin])
            self._ledger.done(crate, ahead=True)

    def _written(self, crate: str, data: bytes, start: int = 0) -> None:
        """Into its partial file, from byte `start` of the data on; nothing else in it changes. OSError when it cannot be."""
        for again in (False, True):
            try:
                with open(os.open(self._ledger.partial(crate), os.O_WRONLY | os.O_CREAT, 0o666), "wb", buffering=0) as file:
                    at = start
                    while at < len(data):  # of a disk that becomes full the first answer is how much it took
                        at += os.pwrite(file.fileno(), data[at:], at)
                return
            except OSError as error:
                # Somebody else fills the disk: what nobody needs now is given back, once.
                if again or error.errno not in FULL or not self._ledger.drop(room(len(data))):
                    raise

    def _together(self, place: Place, group: Wanted) -> tuple[dict[str, bytes], dict[str, JobError]]:
        with self._changed:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="small")
            futures = {key: self._pool.submit(_one, place, each) for key, each in group.items()}
        found, failed = dict[str, bytes](), dict[str, JobError]()
        for key, future in futures.items():
            try:
                found[key] = future.result()
            except JobError as error:
                failed[key] = error
        return found, failed

    def _arrived(self, keys: Sequence[str]) -> None:
        with self._changed:
            self._coming.difference_update(keys)
            self._changed.notify_all()

    def _pack_ahead(self) -> None:
        """What is pending, until nothing is. Errors are for the `contents` that will fetch it itself, or waits for it already."""
        while True:
            with self._changed:
                if not (chosen := self._next()):
                    self._packers -= 1
                    return
                place, group = chosen
                self._coming.update(group)
            made = None
            try:
                self._crates.look()
                there = self._crates.has(group) | {key for key in group if self._elsewhere(key)}
                group = {key: each for key, each in group.items() if key not in there}
                self._arrived([*there])
                made = self._crate(place, group, ahead=True) if group else ({}, {})
                if made is not None:
                    with self._changed:
                        self._failures |= made[1]
            except (JobError, OSError, CancelledError):  # of the disk: for `contents` to meet
                made = {}, {}
            except RuntimeError as error:  # the process ends, and pools take nothing more: nobody is left to be told
                if "shutdown" not in str(error):
                    raise
                made = {}, {}
            finally:
                self._arrived([*group])
            if made is None:
                with self._changed:
                    self._pending = {**{key: (place, each) for key, each in group.items()}, **self._pending}
                self._ledger.wait(1.0)

    def _next(self) -> tuple[Place, dict[str, Object]] | None:
        """The first of what is pending, of one place, and no more than a crate."""
        for key in [key for key in islice(self._pending, MEMBERS) if key in self._coming]:
            del self._pending[key]
        first = next(iter(self._pending.values()), None)
        if first is None:
            return None
        place, group, size = first[0], dict[str, Object](), 0
        for key, (where, each) in islice(self._pending.items(), MEMBERS):
            size += size_of([each.size])
            if where is not place or (group and room(size) > self._limit // PART):
                break
            group[key] = each
        for key in group:
            del self._pending[key]
        return place, group


def _one(place: Place, wanted: Object) -> bytes:
    data = place.contents(wanted)
    if len(data) != wanted.size:
        raise cut(place, wanted, len(data))
    return data
