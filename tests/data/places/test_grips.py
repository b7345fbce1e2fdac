"""What a process will hold again stays locked between two holds, and is in nobody's way."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.places.memory import Numbers, contents, number, on_disk
from trainjobs.data.places import grips
from trainjobs.data.places.claims import BLOCK
from trainjobs.data.places.grips import Grips
from trainjobs.data.places.locks import Locks
from trainjobs.data.places.place import Object
from trainjobs.data.places.shelf import DiskShelf

OBJECTS = [number(each, BLOCK) for each in range(6)]
FOR_EVER = 3600.0  # seconds


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        threading.Event().wait(0.002)


def held(shelf: DiskShelf, source: Numbers, *objects: Object) -> None:
    with shelf.hold(source, objects) as paths:
        assert [path.read_bytes() for path in paths] == [contents(each) for each in objects]


def counting(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each key's lock is given back."""
    freed, free = Counter[str](), Locks.free

    def counted(self: Locks, key: str) -> None:
        freed[key] += 1
        free(self, key)

    monkeypatch.setattr(Locks, "free", counted)
    return freed


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_wanted_is_locked_once_for_many_holds(wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grips, "BEAT", FOR_EVER)
    shelf, source = DiskShelf(tmp_path, 8 * BLOCK), Numbers()
    if wanted:
        shelf.ahead(source, OBJECTS[:2])
    held(shelf, source, *OBJECTS[:2])
    freed = counting(monkeypatch)
    for _ in range(30):
        held(shelf, source, *OBJECTS[:2])
    assert sorted(freed.values()) == ([] if wanted else [30, 30])


def test_whoever_needs_the_room_in_this_process_has_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grips, "BEAT", FOR_EVER)
    shelf, source = DiskShelf(tmp_path, 2 * BLOCK, wait=0.0), Numbers()
    shelf.ahead(source, OBJECTS[:2])
    held(shelf, source, *OBJECTS[:2])
    held(shelf, source, *OBJECTS[2:4])
    assert on_disk(tmp_path) <= 2 * BLOCK


def test_what_is_told_no_more_makes_room_for_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grips, "BEAT", FOR_EVER)
    shelf, source = DiskShelf(tmp_path, 4 * BLOCK), Numbers()
    shelf.ahead(source, OBJECTS[:4])
    held(shelf, source, *OBJECTS[:2])
    until(lambda: source.fetched.total() == 4)
    shelf.ahead(source, OBJECTS[2:])
    until(lambda: source.fetched.total() == 6)
    held(shelf, source, *OBJECTS[2:])
    assert max(source.fetched.values()) == 1


def test_it_ends_at_the_second_beat_of_those_nobody_held_since() -> None:
    beats, more = threading.Semaphore(0), threading.Semaphore(0)
    aged = list[list[str]]()

    def beat() -> bool:
        aged.append(found.aged())
        more.release()
        return bool(found)

    found = Grips(beat, lambda seconds: beats.acquire())  # type: ignore[arg-type, return-value]
    found.add("a")
    beats.release()
    assert more.acquire(timeout=20)
    found.add("b")
    for _ in range(2):
        beats.release()
        assert more.acquire(timeout=20)
    assert aged == [[], ["a"], ["b"]]
    assert not found
    found.add("c")  # and begins anew
    beats.release()
    assert more.acquire(timeout=20)
    assert aged[3:] == [[]]


@pytest.mark.slow
def test_another_process_has_the_room_of_one_that_reads_nothing_more(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 2 * BLOCK), Numbers()
    shelf.ahead(source, OBJECTS[:2])
    held(shelf, source, *OBJECTS[:2])
    command = [sys.executable, "-m", "tests.data.places.test_grips", str(tmp_path)]
    other = subprocess.run(command, cwd=Path(__file__).parents[3], timeout=120, capture_output=True, text=True)
    assert (other.returncode, other.stdout) == (0, "2\n"), other.stderr
    assert on_disk(tmp_path) <= 2 * BLOCK


def other() -> None:
    """A process that needs all of the room."""
    shelf, source = DiskShelf(Path(sys.argv[1]), 2 * BLOCK, wait=30.0), Numbers()
    held(shelf, source, *OBJECTS[2:4])
    print(source.fetched.total(), flush=True)


if __name__ == "__main__":
    other()
