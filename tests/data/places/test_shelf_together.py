"""The cache used by many at once: threads, processes, and processes that are killed. Bytes on the disk are never more than the limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.places import reader
from tests.data.places.memory import Numbers, below, contents, number, on_disk
from trainjobs.api.errors import JobError
from trainjobs.data.places.claims import BLOCK, room
from trainjobs.data.places.ledger import ledger
from trainjobs.data.places.shelf import DiskShelf

pytestmark = pytest.mark.slow
OBJECTS = [number(each, size) for each, size in enumerate((0, 1, 4095, 4096, 4097, 9000, 20_000, 12_288, 5, 8192))]
ACTION = st.tuples(st.sampled_from(["hold", "ahead", "nested"]), st.lists(st.integers(0, 9), min_size=1, max_size=3))


class Watch:
    """Looks at the disk as often as it can."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.most, self.looks, self.ended = folder, 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.thread.join()

    def look(self) -> None:
        while not self.ended.is_set():
            self.most = max(self.most, on_disk(self.folder))
            self.looks += 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(ACTION, max_size=12), min_size=1, max_size=4), st.integers(5, 16), st.data())
def test_any_sequence_by_several_threads(threads: list[list[tuple[str, list[int]]]], blocks: int, data: st.DataObject) -> None:
    limit = blocks * BLOCK
    wrong: list[BaseException] = []
    flaky = data.draw(st.integers(0, 3))

    def fault(found: object) -> None:
        if flaky and sum(source.fetched.values()) % 4 == flaky:
            raise JobError("GTJ0219", "the data does not answer")

    source = Numbers(fault)
    with TemporaryDirectory() as name:
        shelf = DiskShelf(Path(name), limit, wait=0.3)

        def act(what: str, chosen: list[int]) -> None:
            objects = [OBJECTS[each] for each in chosen]
            if what == "ahead":
                return shelf.ahead(source, objects)
            try:
                with shelf.hold(source, objects) as paths:
                    if what == "nested":
                        act("hold", [(each + 1) % 10 for each in chosen])
                    assert [path.read_bytes() for path in paths] == [contents(each) for each in objects]
            except JobError as error:
                too_large = sum({each.name: room(each.size) for each in objects}.values()) > limit
                if error.code not in ("GTJ0114", "GTJ0219") or ("larger" in error.what and not too_large and what != "nested"):
                    raise

        def run(actions: list[tuple[str, list[int]]]) -> None:
            try:
                for what, chosen in actions:
                    act(what, chosen)
            except BaseException as error:
                wrong.append(error)

        with Watch(Path(name)) as watch:
            running = [threading.Thread(target=run, args=(actions,)) for actions in threads]
            for each in running:
                each.start()
            for each in running:
                each.join()
            until_idle(shelf)
        assert not wrong
        assert watch.most <= limit
        whole = [path for path in below(Path(name)) if not path.suffix]
        assert ledger(Path(name)).taken == sum(room(path.stat().st_size) for path in whole) <= limit


def until_idle(shelf: DiskShelf) -> None:
    """Nothing is on its way."""
    shelf.close()
    ends = time.monotonic() + 20
    while shelf._fetchers:
        assert time.monotonic() < ends
        threading.Event().wait(0.001)


def start(folder: Path, limit: int, seed: int, holds: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.data.places.reader", str(folder), str(limit), str(seed), str(holds), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3], env=dict(os.environ))


def test_processes_share_it(tmp_path: Path) -> None:
    limit = 40 * BLOCK
    (tmp_path / "objects").mkdir()
    with Watch(tmp_path) as watch:
        running = [start(tmp_path, limit, seed, 150) for seed in range(3)]
        fetched = [int(process.communicate(timeout=120)[0]) for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
    assert watch.most <= limit
    assert watch.looks > 100
    assert sum(fetched) > 100
    DiskShelf(tmp_path, limit)
    assert not [path for path in below(tmp_path) if path.suffix]
    assert ledger(tmp_path).taken == sum(room(path.stat().st_size) for path in below(tmp_path))


def test_what_fits_is_fetched_once_by_all_of_them_together(tmp_path: Path) -> None:
    running = [start(tmp_path, 10**8, seed, 200) for seed in range(3)]
    assert sum(int(process.communicate(timeout=120)[0]) for process in running) == len(reader.OBJECTS)


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing_that_counts(tmp_path: Path) -> None:
    found = reader.OBJECTS[-1]
    limit = room(found.size) + BLOCK  # no room for it twice
    process = start(tmp_path, limit, 0, 1, "slow")
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    shelf, source, got = DiskShelf(tmp_path, limit), Numbers(), threading.Event()
    assert ledger(tmp_path).taken == room(found.size)

    def hold() -> None:
        with shelf.hold(source, [found]) as (path,):
            assert path.read_bytes() == contents(found)
            got.set()

    thread = threading.Thread(target=hold)
    thread.start()
    assert not got.wait(0.3)  # it waits for the other one
    assert not source.fetched
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    thread.join(20)
    assert got.is_set()
    assert source.fetched.total() == 1
    process.stdout.close()
    assert [path.name for path in below(tmp_path) if path.suffix] == []


def test_processes_that_are_killed_at_any_moment(tmp_path: Path) -> None:
    limit = 40 * BLOCK
    (tmp_path / "objects").mkdir()
    with Watch(tmp_path) as watch:
        for seed in range(12):
            process = start(tmp_path, limit, seed, 10**6)
            while watch.most == 0 or watch.looks % 40:
                threading.Event().wait(0.001)
            threading.Event().wait(0.2 + seed * 0.01)
            process.kill()
            process.communicate()
    assert 0 < watch.most <= limit
    shelf, source = DiskShelf(tmp_path, limit), Numbers()
    assert not [path for path in below(tmp_path) if path.suffix]
    assert ledger(tmp_path).taken == sum(room(path.stat().st_size) for path in below(tmp_path))
    for each in reader.OBJECTS:
        with shelf.hold(source, [each]) as (path,):
            assert path.read_bytes() == contents(each)
