"""The cache of one machine: what is held is there, whole, and never more than the limit."""

from __future__ import annotations

import errno
import os
import pickle
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.places.memory import MemoryBucket, Numbers, below, contents, number, on_disk, place
from trainjobs.api.errors import JobError
from trainjobs.data.places import shelf as module
from trainjobs.data.places.claims import BLOCK
from trainjobs.data.places.ledger import ledger
from trainjobs.data.places.place import Object
from trainjobs.data.places.shelf import DiskShelf


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        threading.Event().wait(0.002)


def held(shelf: DiskShelf, source: Numbers, *objects: Object) -> None:
    with shelf.hold(source, objects) as paths:
        assert [path.read_bytes() for path in paths] == [contents(each) for each in objects]


def test_what_is_held_is_fetched_once_and_kept(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 10 * BLOCK), Numbers()
    one, two = number(1, 5000), number(2, 0)
    held(shelf, source, one, two, one)
    held(shelf, source, two)
    held(shelf, source, one)
    assert source.fetched == {"1-5000": 1, "2-0": 1}
    assert (shelf.counts.fetched, shelf.counts.fetched_bytes, shelf.counts.dropped) == (2, 5000, 0)
    held(DiskShelf(tmp_path, 10 * BLOCK), source, one)  # the run that follows
    assert source.fetched["1-5000"] == 1


def test_what_is_on_this_machine_is_given_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    here = Object("x", 1, "tag", tmp_path / "x")
    shelf, source = DiskShelf(tmp_path / "cache", BLOCK), Numbers()
    with shelf.hold(source, [here, number(1, 5)]) as paths:
        assert (paths[0], paths[1].read_bytes()) == (tmp_path / "x", contents(number(1, 5)))
    shelf.ahead(source, [here])
    assert source.fetched == {"1-5": 1}


def test_other_contents_are_another_object(tmp_path: Path) -> None:
    bucket = MemoryBucket({"x": b"one"})
    shelf = DiskShelf(tmp_path, BLOCK * 2)
    for data in (b"one", b"another"):
        bucket.replace("x", data)
        with shelf.hold(place(bucket, "x"), place(bucket, "x").listed().objects) as (path,):
            assert path.read_bytes() == data


def test_the_one_used_longest_ago_is_dropped(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 3 * BLOCK), Numbers()
    one, two, three, four = (number(each, BLOCK) for each in range(1, 5))
    for each in (one, two, three, one, four):
        held(shelf, source, each)
    assert shelf.counts.dropped == 1
    held(shelf, source, one)
    held(shelf, source, three)
    assert source.fetched[two.name] == source.fetched[one.name] == source.fetched[three.name] == 1
    held(shelf, source, two)
    assert source.fetched[two.name] == 2


def test_what_is_held_is_not_dropped_and_who_needs_its_room_waits(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 2 * BLOCK), Numbers()
    got = threading.Event()

    def other() -> None:
        held(shelf, source, number(3, BLOCK), number(4, BLOCK))
        got.set()

    with shelf.hold(source, [number(1, BLOCK)]) as (one,), shelf.hold(source, [number(2, BLOCK)]) as (two,):
        thread = threading.Thread(target=other)
        thread.start()
        assert not got.wait(0.2)
        assert one.exists()
        assert two.exists()
    thread.join(20)
    assert got.is_set()


def test_waiting_for_room_ends(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 2 * BLOCK, wait=0.1), Numbers()
    with shelf.hold(source, [number(1, BLOCK)]), pytest.raises(JobError) as caught, shelf.hold(source, [number(2, BLOCK), number(3, 1)]):
        raise AssertionError
    assert caught.value.line() == (
        f"GTJ0114 all of the data's cache is in use ({tmp_path}): 8,192 bytes are needed, the limit is 8,192 bytes, and nothing was "
        "released in 0 s. raise data.cache by 8,192 bytes or more, or lower data.workers"
    )
    assert source.fetched == {f"1-{BLOCK}": 1}
    held(shelf, source, number(2, BLOCK), number(3, 1))


def test_an_object_larger_than_the_limit_is_refused_at_once(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 300_000), Numbers()
    with pytest.raises(JobError) as caught:
        held(shelf, source, number("big", 400_000))
    assert caught.value.line() == (
        "GTJ0114 big-400000 is larger than data.cache (numbers://big-400000): it takes 0.4 MB of the disk, and the limit is 0.3 MB. "
        "raise data.cache to several times 0.4 MB, or write the data in smaller pieces"
    )
    with pytest.raises(JobError, match=r"GTJ0114 2 objects that are read together are larger than data.cache .*they take 0.4 MB"):
        held(shelf, source, number(1, 200_000), number(2, 200_000))
    assert not source.fetched
    shelf.ahead(source, [number("big", 400_000)])


def test_what_is_fetched_ahead_is_there_and_is_spared(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 4 * BLOCK), Numbers()
    objects = [number(each, BLOCK) for each in range(9)]
    held(shelf, source, objects[0])
    shelf.ahead(source, objects[1:4])
    until(lambda: shelf.counts.fetched == 4)
    held(shelf, source, objects[4])  # room is made by dropping what has been used
    assert shelf.counts.dropped == 1
    shelf.ahead(source, objects[5:8])  # the first drops what has been used; for the others there is no room yet
    until(lambda: source.fetched[objects[5].name] == 1)
    for each in objects[1:4] + objects[5:8]:
        held(shelf, source, each)
    assert all(source.fetched[each.name] == 1 for each in objects[:8])


def test_an_epoch_through_a_small_cache_fetches_everything_once(tmp_path: Path) -> None:
    """Windows of five objects, two of them ahead, in a cache of a tenth of the data."""
    shelf, source = DiskShelf(tmp_path, 20 * BLOCK), Numbers()
    objects = [number(each, BLOCK - each) for each in range(200)]
    for start in range(0, 200, 5):
        shelf.ahead(source, objects[start + 5 : start + 15])
        held(shelf, source, *objects[start : start + 5])
        assert on_disk(tmp_path) <= 20 * BLOCK
    until(lambda: not [path for path in below(tmp_path) if path.suffix])
    assert source.fetched.total() == 200
    assert shelf.counts.fetched_bytes == sum(each.size for each in objects)


def test_windows_that_are_used_again_and_again_stay(tmp_path: Path) -> None:
    """Every block of a window is read by many batches. What is ahead waits rather than take the room of what is still read."""
    shelf, source, chance = DiskShelf(tmp_path, 11 * BLOCK), Numbers(), random.Random(0)
    objects = [number(each, BLOCK) for each in range(40)]
    for start in range(0, 40, 4):
        for _ in range(10):
            shelf.ahead(source, objects[start : start + 12])
            held(shelf, source, *chance.sample(objects[start : start + 4], 2))
            assert on_disk(tmp_path) <= 11 * BLOCK
    assert max(source.fetched.values()) == 1


def test_what_is_not_needed_any_more_makes_room(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 4 * BLOCK), Numbers()
    objects = [number(each, BLOCK) for each in range(8)]
    shelf.ahead(source, objects[:4])
    held(shelf, source, *objects[:4])
    assert (shelf.counts.fetched, shelf.counts.dropped) == (4, 0)
    shelf.ahead(source, objects[3:])  # one is needed on; for the last of the others there is no room yet
    until(lambda: shelf.counts.fetched == 7)
    held(shelf, source, objects[3])
    assert shelf.counts.fetched == 7
    assert shelf.counts.dropped == 3


def test_a_failure_ahead_is_for_nobody_and_hold_tries_again(tmp_path: Path) -> None:
    failed = threading.Event()

    def fault(found: Object) -> None:
        if not failed.is_set():
            failed.set()
            raise JobError("GTJ0219", "the data does not answer")

    shelf, source = DiskShelf(tmp_path, 4 * BLOCK), Numbers(fault)
    shelf.ahead(source, [number(1, 5000)])
    assert failed.wait(20)
    until(lambda: on_disk(tmp_path) == 0)
    held(shelf, source, number(1, 5000))
    assert source.fetched == {"1-5000": 2}


def test_a_hold_that_waits_for_what_is_fetched_ahead_ends_with_its_error(tmp_path: Path) -> None:
    """Not with a second try: patience would be asked for twice."""
    begun, go = threading.Event(), threading.Event()

    def fault(found: Object) -> None:
        begun.set()
        go.wait(20)
        raise JobError("GTJ0219", "the data does not answer", why="SlowDown")

    shelf, source = DiskShelf(tmp_path, 4 * BLOCK), Numbers(fault)
    shelf.ahead(source, [number(1, 5000)])
    assert begun.wait(20)
    threading.Timer(0.1, go.set).start()
    with pytest.raises(JobError, match="GTJ0219 the data does not answer: SlowDown"):
        held(shelf, source, number(1, 5000))
    assert source.fetched == {"1-5000": 1}
    assert ledger(tmp_path).taken == on_disk(tmp_path) == 0


def test_a_place_that_does_not_answer_leaves_nothing_and_takes_no_room(tmp_path: Path) -> None:
    def fault(found: Object) -> None:
        if found.name.startswith("2"):
            raise JobError("GTJ0219", "the data does not answer")

    shelf, source = DiskShelf(tmp_path, 8 * BLOCK), Numbers(fault)
    with pytest.raises(JobError, match="GTJ0219"):
        held(shelf, source, *(number(each, 5000) for each in range(4)))
    names = {path.name for path in below(tmp_path)}
    assert not [name for name in names if "." in name]
    assert ledger(tmp_path).taken == 2 * BLOCK * len(names)
    held(shelf, Numbers(), *(number(each, 5000) for each in range(4)))


def test_an_object_that_arrives_with_another_size_is_refused(tmp_path: Path) -> None:
    class Short(Numbers):
        def fetch(self, found: Object, to: Path) -> None:
            to.write_bytes(b"short")

    shelf = DiskShelf(tmp_path, 8 * BLOCK)
    with pytest.raises(JobError, match=r"GTJ0113 1-5000 did not arrive whole .*it has 5,000 bytes, and 5 arrived"):
        held(shelf, Short(), number(1, 5000))
    assert on_disk(tmp_path) == ledger(tmp_path).taken == 0


def full(times: int) -> Callable[[Object], None]:
    left = [times]

    def fault(found: Object) -> None:
        if found.name.startswith("new"):
            left[0] -= 1
            if left[0] >= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/x")

    return fault


def test_a_disk_that_fills_makes_room_once(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 8 * BLOCK), Numbers(full(1))
    for each in range(3):
        held(shelf, source, number(each, BLOCK))
    held(shelf, source, number("new", BLOCK))
    assert (source.fetched[f"new-{BLOCK}"], shelf.counts.dropped) == (2, 1)
    assert ledger(tmp_path).taken == on_disk(tmp_path) == 3 * BLOCK


@pytest.mark.parametrize(("times", "before"), [(2, 3), (1, 0)])
def test_a_disk_that_stays_full_is_told(times: int, before: int, tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 8 * BLOCK), Numbers(full(times))
    for each in range(before):
        held(shelf, source, number(each, BLOCK))
    with pytest.raises(JobError) as caught:
        held(shelf, source, number("new", BLOCK))
    assert caught.value.line() == (
        "GTJ0114 the disk is full while data is fetched (/cache/x): No space left on device. "
        "free space there, or set data.cache to less than what is free"
    )
    assert caught.value.exit_code == 7
    assert not [path for path in below(tmp_path) if path.suffix]
    assert ledger(tmp_path).taken == on_disk(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JobError, match=r"GTJ0114 the data's cache cannot be written \(.*file.*\): (Not a directory|File exists)"):
        DiskShelf(tmp_path / "file" / "cache", BLOCK)

    def lockf(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", lockf)
    with pytest.raises(JobError, match=r"GTJ0114 the data's cache is on a file system without locks .*choose a run folder on a local disk"):
        DiskShelf(tmp_path / "nfs", BLOCK)


def test_the_limit_is_half_of_what_is_free_and_does_not_shrink_by_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [100 * BLOCK]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free[0]}))
    shelf = DiskShelf(tmp_path, None)
    assert shelf.limit == 50 * BLOCK
    held(shelf, Numbers(), number(1, 20 * BLOCK))
    free[0] -= 20 * BLOCK
    assert DiskShelf(tmp_path, None).limit == pickle.loads(pickle.dumps(shelf)).limit == 50 * BLOCK


def test_a_limit_that_was_lowered_holds_from_the_start(tmp_path: Path) -> None:
    for each in range(8):
        held(DiskShelf(tmp_path, 8 * BLOCK), Numbers(), number(each, BLOCK))
    assert on_disk(tmp_path) == 8 * BLOCK
    DiskShelf(tmp_path, 3 * BLOCK)
    assert on_disk(tmp_path) == 3 * BLOCK


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    key = "0" * 32
    (folder / f"{key}.partial").write_bytes(b"half")
    (folder / f"{key}.8192.claim").write_bytes(b"")
    (folder / f"{'1' * 32}.partial").write_bytes(b"half")
    (folder / ("2" * 32)).write_bytes(b"whole")
    (folder / ".DS_Store").write_bytes(b"somebody else's")
    (tmp_path / "lock").write_bytes(b"00000000000000999999")
    DiskShelf(tmp_path, 8 * BLOCK)
    assert {path.name for path in below(tmp_path)} == {"2" * 32, ".DS_Store"}
    assert ledger(tmp_path).taken == BLOCK


def test_objects_that_somebody_deleted_are_fetched_again(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 8 * BLOCK), Numbers()
    held(shelf, source, number(1, 100))
    for path in below(tmp_path):
        path.unlink()
    held(shelf, source, number(1, 100))
    assert source.fetched == {"1-100": 2}


def test_several_small_objects_are_on_their_way_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(8, timeout=20)
    shelf = DiskShelf(tmp_path, 100 * BLOCK)
    held(shelf, Numbers(lambda found: together.wait() and None), *(number(each, 100) for each in range(8)))


def test_thousands_are_dropped_without_a_look_at_all_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    shelf, source = DiskShelf(tmp_path, 50 * BLOCK), Numbers()
    monkeypatch.setattr(module.os, "fsync", lambda file: None)
    look = ledger(tmp_path)._look
    monkeypatch.setattr(ledger(tmp_path), "_look", lambda: looks.append(1) or look())
    for each in range(400):
        held(shelf, source, number(each, 100))
    assert shelf.counts.dropped == 350
    assert len(looks) == 0
    assert re.fullmatch("0*204800", (tmp_path / "lock").read_text())


def test_a_cache_that_was_cleared_begins_anew(tmp_path: Path) -> None:
    """Also while the shelf of before is still in memory, as one of a run before in this process may be."""
    before, source = DiskShelf(tmp_path / "cache", 10 * BLOCK), Numbers()
    held(before, source, number(1, 5000))
    shutil.rmtree(tmp_path / "cache")
    shelf = DiskShelf(tmp_path / "cache", 10 * BLOCK)
    held(shelf, source, number(1, 5000))
    assert source.fetched == {"1-5000": 2}
