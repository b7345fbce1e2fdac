"""What lies in a cache folder, and who needs it: agreed between all threads and processes of a machine by locks that die with them.

    lock                       a byte is locked for each change; one for each object: shared while it is held, alone while it is fetched;
                               another by all who will hold it soon. Its first bytes say how much room is taken.
    objects/<key>              an object, whole
    objects/<key>.partial      one that is being fetched
    objects/<key>.<room>.claim how much of the limit it will take: made before the first byte is fetched

A process that is killed leaves a partial file and a claim that nobody locks: whoever looks next removes both. So an object has its name
only when it is whole, and what is taken is never more than the limit, also while it is fetched. Room is counted in blocks of a disk.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from trainjobs.data.places.claims import Claim, Counts, room
from trainjobs.data.places.idle import PASSED, SOON, Idle, Queue, found_in
from trainjobs.data.places.locks import Locks
from trainjobs.data.places.wants import Wants

REST = 1.0  # seconds between two looks at all that is here


class Ledger:
    """Of one folder, the same for all threads of a process: `ledger` gives it. Keys are 32 hexadecimal digits. Raises OSError."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self.folder, self.counts = folder / "objects", Counts()
        self._top = str(self.folder)  # of thousands of paths, those of pathlib take most of the time
        self._now, self._looked = now, -REST
        self.folder.mkdir(parents=True, exist_ok=True)
        self._locks = Locks(folder / "lock")
        self._held: Counter[str] = Counter()
        self._wants = Wants(self._locks)
        self._fetching: dict[str, int] = {}  # with their room
        self._idle = Queue()
        with self._locks.alone():
            self._look()

    def path(self, key: str) -> Path:
        return self.folder / key

    def partial(self, key: str) -> Path:
        return self.folder / f"{key}.partial"

    @property
    def taken(self) -> int:  # bytes of the disk, claimed ones included; at least what there is
        return self._locks.number

    def claim(self, wanted: Mapping[str, int], limit: int, *, ahead: bool = False) -> Claim | None:
        """Hold what is here of objects (with their sizes), and make room for the others, all or nothing. None: there is no room now.
        `ahead`: nothing is held, and what others fetched ahead stays."""
        with self._locks.alone():
            here, mine, others = list[str](), list[str](), list[str]()
            for key, size in wanted.items():
                if key in self._fetching:
                    others.append(key)
                elif self._whole(key, size):
                    # It is locked alone for a moment after it was made whole by another process.
                    (here if ahead or self._held[key] or self._locks.share(key) else others).append(key)
                else:
                    (mine if self._locks.own(key) else others).append(key)
            if ahead:
                self._stamp([key for key in here if not self._held[key]], SOON)
            else:
                self._held.update(here)
                for key in here:
                    self._idle.discard(key)
            try:
                if self._make_room(sum(room(wanted[key]) for key in mine), limit, ahead):
                    for key in mine:
                        self._reserve(key, room(wanted[key]))
                    return Claim(tuple(here), tuple(mine), tuple(others))
            except OSError:
                self._give_up(mine)
                self._let_go(() if ahead else here)
                raise
            self._give_up(mine)
            self._let_go(() if ahead else here)
            return None

    def done(self, key: str, *, ahead: bool) -> None:
        """What was claimed is fetched: it gets its name, and is held; or, `ahead`, is kept for who will soon hold it."""
        with self._locks.alone():
            os.rename(self.partial(key), self.path(key))
            self.counts.fetched += 1
            self.counts.fetched_bytes += os.stat(self.path(key)).st_size
            self._mark(key).unlink(missing_ok=True)
            del self._fetching[key]
            if ahead:
                self._stamp([key], SOON)
                self._locks.free(key)
            else:
                self._held[key] += 1
                self._locks.share(key)
            self._locks.changed.notify_all()

    def failed(self, *keys: str) -> None:
        """What was claimed will not be fetched."""
        with self._locks.alone():
            self._give_up(keys)
            self._locks.changed.notify_all()

    def want(self, keys: Iterable[str], passed: Collection[str] = (), unread: Collection[str] = ()) -> None:
        """`keys` will be held soon; the others not any more. Those `passed` were held here: they are as used now, or as soon as nobody
        wants them. Those `unread` are for others to hold."""
        with self._locks.alone():
            self._wants.add(keys)
            self._wants.remove([*passed, *unread])
            self._used(passed, PASSED)
            self._locks.changed.notify_all()

    def release(self, keys: Sequence[str]) -> None:
        """What any process will hold soon is kept as what was fetched ahead is."""
        with self._locks.alone():
            self._let_go(keys)
            self._used(dict.fromkeys(keys))
            self._locks.changed.notify_all()

    def forget(self, keys: Iterable[str]) -> None:
        """Nobody here will hold these soon."""
        with self._locks.alone():
            self._used(keys)
            self._locks.changed.notify_all()

    def lose(self, key: str) -> None:
        """What is here is damaged."""
        with self._locks.alone(), suppress(FileNotFoundError):
            size = os.stat(self.path(key)).st_size
            if not self._held[key] and key not in self._fetching and self._locks.own(key):
                self.path(key).unlink()
                self._locks.free(key)
                self._idle.discard(key)
                self._take(-room(size))

    def fetching(self, key: str) -> bool:
        """Whether some process is fetching this. What a dead one left is removed."""
        with self._locks.alone():
            if key in self._fetching:
                return True
            if self._held[key]:
                return False
            if not self._locks.own(key):
                return True
            self._locks.free(key)
            if os.path.exists(f"{self._top}/{key}.partial"):
                self._look()
            return False

    def trim(self, limit: int) -> None:
        """Drop what is more, as far as nobody holds it."""
        with self._locks.alone():
            self._make_room(0, limit, False)

    def drop(self, need: int) -> bool:
        """Make room on the disk itself, whatever the limit says; False when nothing can be dropped."""
        with self._locks.alone():
            before = self.taken
            self._make_room(need, before, False)
            return self.taken < before

    def wait(self, seconds: float) -> None:
        """Until something changes here in this process, or so long: of other processes nobody is told."""
        with self._locks.changed:
            self._locks.changed.wait(seconds)

    def _make_room(self, need: int, limit: int, ahead: bool) -> bool:
        for look in (False, True):
            if look and self._now() - self._looked >= REST:
                self._look()
            if self.taken + need > limit:
                self._used([key for key in self._idle.passed(self._now()) if key not in self._wants])
            while self.taken + need > limit and (idle := self._idle.used()):
                if idle.key in self._wants:  # it was stamped by who does not know
                    self._stamp([idle.key], SOON)
                else:
                    self._drop(idle)
            while look and not ahead and self.taken + need > limit and (idle := self._idle.ahead()):
                self._drop(idle)
            if self.taken + need <= limit:
                return True
        return need == 0

    def _drop(self, idle: Idle) -> None:
        """Unless another process holds it, or used it since."""
        path = self.path(idle.key)
        with suppress(FileNotFoundError):
            if path.stat().st_mtime_ns != idle.time or not self._locks.own(idle.key):
                return
            path.unlink()
            self._locks.free(idle.key)
            self._take(-room(idle.size))
            self.counts.dropped += 1
            self.counts.dropped_bytes += idle.size

    def _reserve(self, key: str, bytes: int) -> None:
        self._fetching[key] = bytes
        self._take(bytes)
        self._mark(key).touch()

    def _give_up(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._fetching:
                _remove(self.partial(key), self._mark(key))
                self._take(-self._fetching.pop(key))
            self._locks.free(key)

    def _look(self) -> None:
        """Count what is here, and remove what dead processes left."""
        self._looked = self._now()
        whole, partial, claims = found_in(self.folder)
        taken = sum(room(each.size) for each in whole)
        for key, claimed in claims.items():
            partial.discard(key)
            if key in self._fetching or not self._locks.own(key):
                taken += claimed
            else:
                _remove(self.partial(key), self.folder / f"{key}.{claimed}.claim")
                self._locks.free(key)
        _remove(*map(self.partial, partial))
        self._idle.fill((each for each in whole if not self._held[each.key]), self._now())
        self._locks.number = taken

    def _whole(self, key: str, size: int) -> bool:
        try:
            return os.stat(f"{self._top}/{key}").st_size == size
        except FileNotFoundError:
            return False

    def _let_go(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self._idle.add(key, f"{self._top}/{key}", self._now())
                self._locks.free(key)

    def _used(self, keys: Iterable[str], spared: float = 0.0) -> None:
        """As used now, or where they are wanted spared for so long; without a time as long as they are already, at first SOON."""
        for key in keys:
            if not self._held[key] and key not in self._fetching:
                wanted = key in self._wants
                if spared or not (wanted and self._idle.spared(key)):  # the first stamp tells the order in which they are needed
                    self._stamp([key], (spared or SOON) if wanted else 0.0)

    def _stamp(self, keys: Iterable[str], ahead: float) -> None:
        """As used now, or so many seconds ahead."""
        now = self._now()
        for key in keys:
            with suppress(FileNotFoundError):  # dropped, or somebody cleared the folder
                os.utime(f"{self._top}/{key}", (now + ahead, now + ahead))
                self._idle.add(key, f"{self._top}/{key}", now)

    def _mark(self, key: str) -> Path:
        return self.folder / f"{key}.{self._fetching[key]}.claim"

    def _take(self, bytes: int) -> None:
        self._locks.number = max(0, self.taken + bytes)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


_OPEN: WeakValueDictionary[tuple[int, Path], Ledger] = WeakValueDictionary()
_OPENING = Lock()


def _forked() -> None:
    """In a child: whoever had the lock is not there, and would keep it for ever."""
    global _OPENING
    _OPENING = Lock()


os.register_at_fork(after_in_child=_forked)


def ledger(folder: Path) -> Ledger:
    """The one of a folder that this process has."""
    with _OPENING:
        folder.mkdir(parents=True, exist_ok=True)
        name = (os.getpid(), folder.resolve())
        found = _OPEN.get(name)
        if found is None or not found.folder.is_dir():  # somebody cleared the folder
            _OPEN[name] = found = Ledger(name[1])
        return found
