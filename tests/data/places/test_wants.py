"""What one process has passed and another has yet to read stays in the cache that they share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.data.places.memory import Numbers, below, contents, number, on_disk
from trainjobs.data.places.claims import BLOCK
from trainjobs.data.places.place import Object
from trainjobs.data.places.shelf import DiskShelf

LIMIT = 6 * BLOCK
WINDOWS = [[number(each, BLOCK) for each in range(start, start + 2)] for start in range(0, 12, 2)]


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        threading.Event().wait(0.002)


def passed(shelf: DiskShelf, source: Numbers, window: int) -> None:
    """Told as a run tells: what is read now and what comes next."""
    shelf.ahead(source, [*WINDOWS[window], *WINDOWS[window + 1]])
    held(shelf, source, *WINDOWS[window])


def held(shelf: DiskShelf, source: Numbers, *objects: Object) -> None:
    with shelf.hold(source, objects) as paths:
        assert [path.read_bytes() for path in paths] == [contents(each) for each in objects]


def behind() -> None:
    """A process that is a window behind: it wants the first two, says so, and reads the first of them when it is told to."""
    shelf, source = DiskShelf(Path(sys.argv[1]), LIMIT), Numbers()
    passed(shelf, source, 0)
    print("wants", flush=True)
    for window in map(int, sys.stdin):
        passed(shelf, source, window)
        print(source.fetched.total(), flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_it_is_dropped_only_when_nobody_wants_it(killed: bool, tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, LIMIT), Numbers()
    passed(shelf, source, 0)
    until(lambda: source.fetched.total() == 4)
    command = [sys.executable, "-m", "tests.data.places.test_wants", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "wants\n"
        passed(shelf, source, 1)  # which takes the last room
        until(lambda: source.fetched.total() == 6)
        passed(shelf, source, 2)  # of what comes next nothing can be fetched: everything here is wanted
        assert present(WINDOWS[0] + WINDOWS[1] + WINDOWS[2], tmp_path)
        if killed:
            other.kill()
        else:
            other.stdin.write("1\n")
            other.stdin.flush()
            assert other.stdout.readline() == "0\n", "it fetched nothing: all of it was kept for it"
        until(lambda: present(WINDOWS[3], tmp_path))
        assert on_disk(tmp_path) <= LIMIT
        assert max(source.fetched.values()) == 1
        other.kill()
    shelf.close()


def present(objects: list[Object], folder: Path) -> bool:
    there = set[bytes]()
    for path in below(folder):
        with suppress(FileNotFoundError):  # dropped
            there.add(path.read_bytes())
    return all(contents(each) in there for each in objects)


if __name__ == "__main__":
    behind()
