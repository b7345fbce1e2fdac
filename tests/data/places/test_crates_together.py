"""Crates used by several processes, and by processes that are killed. Bytes on the disk are never more than the limit."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.data.places import reader
from tests.data.places.memory import Numbers, below, contents, on_disk
from tests.data.places.test_shelf_together import Watch, start
from trainjobs.data.places.claims import BLOCK, room
from trainjobs.data.places.ledger import ledger
from trainjobs.data.places.shelf import DiskShelf

pytestmark = pytest.mark.slow


def test_processes_share_them(tmp_path: Path) -> None:
    running = [start(tmp_path, 10**8, seed, 100, "small") for seed in range(3)]
    fetched = [int(process.communicate(timeout=120)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(reader.OBJECTS) <= sum(fetched) <= 1.1 * len(reader.OBJECTS)


def test_the_limit_holds_for_all_of_them(tmp_path: Path) -> None:
    limit = 60 * BLOCK
    (tmp_path / "objects").mkdir()
    with Watch(tmp_path) as watch:
        running = [start(tmp_path, limit, seed, 100, "small") for seed in range(3)]
        try:
            fetched = [int(process.communicate(timeout=120)[0]) for process in running]
        finally:
            for process in running:
                process.kill()
    assert [process.returncode for process in running] == [0, 0, 0]
    assert watch.most <= limit
    assert sum(fetched) > 100
    DiskShelf(tmp_path, limit)
    assert ledger(tmp_path).taken == sum(room(path.stat().st_size) for path in below(tmp_path)) <= limit


def test_processes_that_are_killed_leave_nothing_that_counts(tmp_path: Path) -> None:
    limit = 60 * BLOCK
    for seed in range(6):
        process = start(tmp_path, limit, seed, 10**6, "small")
        while not (tmp_path / "objects").exists() or (seed == 0 and not on_disk(tmp_path)):
            threading.Event().wait(0.001)
        threading.Event().wait(0.6 + seed * 0.01)
        process.kill()
        process.communicate()
    shelf, source = DiskShelf(tmp_path, limit), Numbers()
    assert ledger(tmp_path).taken == sum(room(path.stat().st_size) for path in below(tmp_path)) <= limit
    for each in reader.OBJECTS:
        assert shelf.contents(source, [each]) == [contents(each)]
    assert on_disk(tmp_path) <= limit
