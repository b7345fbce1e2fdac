"""Small objects, many to a file: whole or not at all, each fetched once, never more of the disk than the limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.data.places.memory import MemoryBucket, Numbers, below, contents, number, on_disk, place
from tests.data.places.test_shelf import until
from trainjobs.api.errors import JobError
from trainjobs.data.places.claims import BLOCK, room
from trainjobs.data.places.crates import MARK, MEMBERS, Crates, listed, name_of, packed, read_list, size_of
from trainjobs.data.places.ledger import ledger
from trainjobs.data.places.place import Object
from trainjobs.data.places.shelf import DiskShelf

LARGE = 1000 * BLOCK


def read(shelf: DiskShelf, source: Numbers, *objects: Object) -> None:
    assert shelf.contents(source, objects) == [contents(each) for each in objects]


def some(count: int, size: int = 700, start: int = 0) -> list[Object]:
    return [number(each, size + each % 7) for each in range(start, start + count)]


def test_a_crate_holds_what_was_put_in() -> None:
    made = {f"{each:032x}": bytes([each]) * each for each in range(5)}
    sizes = {key: len(data) for key, data in made.items()}
    whole = packed(sizes, made)
    assert len(whole) == size_of([*sizes.values()])
    lacking = packed(sizes, {key: data for key, data in made.items() if not key.endswith("3")})
    assert len(lacking) == len(whole)
    assert len(listed(sizes)) < len(whole)
    assert name_of([*made]) == name_of([*reversed(made)])
    assert name_of([*made]).startswith(MARK)


def test_many_are_one_file_and_fetched_once(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, LARGE), Numbers()
    objects = some(MEMBERS + 10)
    read(shelf, source, *objects)
    assert len([*below(tmp_path)]) == 2
    assert set(source.fetched.values()) == {1}
    read(shelf, source, *reversed(objects))
    read(DiskShelf(tmp_path, LARGE), source, objects[3], objects[-1], objects[3])  # the run that follows
    assert set(source.fetched.values()) == {1}
    assert ledger(tmp_path).taken == sum(room(path.stat().st_size) for path in below(tmp_path))


def test_nothing_of_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(file: int) -> None:
        raise AssertionError

    monkeypatch.setattr("os.fsync", refused)
    read(DiskShelf(tmp_path, LARGE), Numbers(), *some(20))


def test_who_fetches_ahead_while_the_process_ends_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    shelf, source, objects = DiskShelf(tmp_path, LARGE), Numbers(), some(9)
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    shelf._crating._pool = ended
    shelf.soon(source, objects)
    until(lambda: not shelf._crating._packers or bool(told))
    for thread in [each for each in threading.enumerate() if each.name == "crate"]:
        thread.join(10)
    assert told == []
    assert not source.fetched
    shelf.close()
    read(shelf, source, *objects)


@pytest.mark.parametrize("damage", [lambda data: bytes(len(data)), lambda data: data[:-9] + bytes(9), lambda data: data[: len(data) // 2]])
def test_what_a_power_cut_left_is_fetched_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    source, objects = Numbers(), some(9)
    read(DiskShelf(tmp_path, LARGE), source, *objects)
    (crate,) = below(tmp_path)
    crate.write_bytes(damage(crate.read_bytes()))
    other = Crates(tmp_path / "objects")  # who did not write it
    other.look()
    shelf = DiskShelf(tmp_path, LARGE)
    for _ in range(2):
        read(shelf, source, *objects)
    assert max(source.fetched.values()) == 2


def test_room_is_made_and_the_limit_holds(tmp_path: Path) -> None:
    """A tenth of the data fits, and what is read in its order is fetched once."""
    objects = some(600, 3000)
    limit = sum(each.size for each in objects) // 10
    shelf, source = DiskShelf(tmp_path, limit), Numbers()
    for start in range(0, 600, 20):
        shelf.soon(source, objects[start + 20 : start + 40])
        read(shelf, source, *objects[start : start + 20])
        assert on_disk(tmp_path) <= limit
    assert source.fetched.total() <= 1.1 * 600
    assert ledger(tmp_path).taken <= limit


def test_what_is_told_is_fetched_ahead_in_its_order(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, LARGE), Numbers()
    objects = some(3 * MEMBERS)
    shelf.soon(source, objects)
    until(lambda: source.fetched.total() == len(objects))
    shelf.soon(source, objects)  # of what is here nothing
    read(shelf, source, *objects)
    assert set(source.fetched.values()) == {1}


def test_who_needs_what_is_on_its_way_waits_for_it(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def fault(found: Object) -> None:
        begun.set()
        assert go.wait(20)

    shelf, source = DiskShelf(tmp_path, LARGE), Numbers(fault)
    objects = some(8)
    shelf.soon(source, objects)
    assert begun.wait(20)
    threading.Timer(0.1, go.set).start()
    read(shelf, source, *objects[:4])
    assert set(source.fetched.values()) == {1}


def test_an_error_ahead_is_told_to_who_waits_and_only_once(tmp_path: Path) -> None:
    failing = {"3-703"}

    def fault(found: Object) -> None:
        if found.name in failing:
            raise JobError("GTJ0219", "the data does not answer")

    shelf, source = DiskShelf(tmp_path, LARGE), Numbers(fault)
    objects = some(8)
    with pytest.raises(JobError, match="GTJ0219"):
        shelf.contents(source, objects)
    assert source.fetched.total() == 8
    read(shelf, source, *objects[4:])  # those that came are kept
    failing.clear()
    read(shelf, source, *objects)
    assert source.fetched.total() == 9


def test_one_that_arrives_with_another_size_is_refused(tmp_path: Path) -> None:
    class Short(Numbers):
        def contents(self, found: Object) -> bytes:
            return b"short"

    shelf = DiskShelf(tmp_path, LARGE)
    with pytest.raises(JobError, match=r"GTJ0113 1-5000 did not arrive whole .*it has 5,000 bytes, and 5 arrived"):
        shelf.contents(Short(), [number(1, 5000)])
    assert on_disk(tmp_path) == ledger(tmp_path).taken == 0


def test_one_that_can_never_be_here_is_refused_and_waiting_for_room_ends(tmp_path: Path) -> None:
    shelf, source = DiskShelf(tmp_path, 2 * BLOCK, wait=0.1), Numbers()
    with pytest.raises(JobError, match=r"GTJ0114 1-9000 is larger than data.cache"):
        shelf.contents(source, [number(1, 9000)])
    with (
        shelf.hold(source, [number(2, BLOCK), number(3, BLOCK)]),
        pytest.raises(JobError, match="GTJ0114 all of the data's cache is in use"),
    ):
        shelf.contents(source, [number(4, 100)])
    read(shelf, source, number(4, 100))


def test_what_a_dead_process_left_is_fetched_anew(tmp_path: Path) -> None:
    shelf, source, one = DiskShelf(tmp_path, LARGE), Numbers(), number(1, 500)
    read(shelf, source, one)
    (crate,) = below(tmp_path)
    members = read_list(crate)
    crate.rename(crate.with_suffix(".partial"))  # as if it had been killed before the end
    assert members is not None
    read(shelf, source, one)
    assert source.fetched == {one.name: 2}
    assert [path.suffix for path in below(tmp_path)] == [""]


def test_contents_of_another_version_are_another_object(tmp_path: Path) -> None:
    bucket = MemoryBucket({"x": b"one"}, md5=True)
    shelf = DiskShelf(tmp_path, LARGE)
    for data in (b"one", b"another"):
        bucket.replace("x", data)
        assert shelf.contents(place(bucket, "x"), place(bucket, "x").listed().objects) == [data]


def test_what_was_in_another_crate_that_is_gone_is_found_where_it_still_is(tmp_path: Path) -> None:
    """Else who wants just what is in the crate that stayed is told that it is here, does not find it, and asks again, for ever."""
    crates = Crates(tmp_path)
    one, two = f"{1:032x}", f"{2:032x}"
    stays, goes = name_of([one]), name_of([one, two])
    (tmp_path / stays).write_bytes(packed({one: 3}, {one: b"one"}))
    (tmp_path / goes).write_bytes(packed({one: 3, two: 3}, {one: b"one", two: b"two"}))
    crates.look()
    assert crates.add(stays, tmp_path / stays)
    assert crates.add(goes, tmp_path / goes)
    (tmp_path / goes).unlink()
    crates.look()
    assert crates.add(stays, tmp_path / stays)
    assert crates.read({one: 3})[0] == {one: b"one"}


def test_who_looked_before_another_said_what_it_fetches_does_not_fetch_it_too(tmp_path: Path) -> None:
    """Two shelves of one folder, as two processes have them: the second looks last just before the first says it."""
    begun, go = threading.Event(), threading.Event()

    def stuck(found: Object) -> None:
        begun.set()
        assert go.wait(20)

    first, second, slow, source = DiskShelf(tmp_path, 10**6), DiskShelf(tmp_path, 10**6), Numbers(stuck), Numbers()
    one, two = number(1, 100), number(2, 100)
    crates = second._crating._crates
    look, looks = crates.look, list[int]()

    def late() -> None:
        looks.append(1)
        if len(looks) == 2:
            go.set()
        if len(looks) > 1:
            look()

    crates.look = late  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        made = pool.submit(first.contents, slow, [one])
        assert begun.wait(20)
        assert second.contents(source, [one, two]) == [contents(one), contents(two)]
        assert made.result() == [contents(one)]
    assert slow.fetched + source.fetched == {one.name: 1, two.name: 1}
