"""Data in buckets of real servers: listed, read, fetched and refused alike on all of them; also over a wire that fails."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.data.places.memory import on_disk
from tests.stores.servers import ACCOUNT, BUCKET, Service
from tests.stores.wire import FAULTS, Fault, wire
from trainjobs.api.errors import JobError
from trainjobs.data.places import bucket as module
from trainjobs.data.places.open import open_place
from trainjobs.data.places.shelf import DiskShelf
from trainjobs.stores import az, gs, s3
from trainjobs.stores.patience import Patience

pytestmark = pytest.mark.slow


def filled(server: Service, objects: dict[str, bytes]) -> str:
    uri = server.fresh()
    for key, data in objects.items():
        server.write(uri, key, data)
    return uri


def test_a_prefix_an_object_a_pattern_and_a_whole_bucket(server: Service, tmp_path: Path) -> None:
    data = {"a/1.txt": b"one", "a/2.txt": b"", "b/with space.txt": b"two", "b/ü.txt": b"three", "x-0.tar": b"four", "x-1.tar": b"five"}
    hidden = {".h.txt": b"1", ".git/config": b"2", "@eaDir/t.txt": b"3"}
    uri = filled(server, data | hidden)
    place = open_place(uri)
    listed = place.listed()
    assert [each.name for each in listed.objects] == sorted(data)
    assert (listed.others, listed.folders) == (Counter({"hidden .txt": 1}), Counter({".git": 1, "@eaDir": 1}))
    for number, each in enumerate(listed.objects):
        assert place.read(each, 0, 99) == data[each.name]
        assert place.read(each, 1, 3) == data[each.name][1:3]
        assert place.where(each) == f"{uri}/{each.name}"
        place.fetch(each, tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == data[each.name]
    (one,) = open_place(f"{uri}/a/1.txt").listed().objects
    assert (one.name, one.tag, one.size) == ("1.txt", listed.objects[0].tag, 3)
    assert open_place(f"{uri}/a/1.txt").read(one, 0, 3) == b"one"
    assert [each.name for each in open_place(f"{uri}/x-{{0..1}}.tar").listed().objects] == ["x-0.tar", "x-1.tar"]
    whole = open_place(uri.rpartition("/")[0]).listed()
    below = uri.rpartition("/")[2]
    assert {each.name for each in whole.objects} >= {f"{below}/{name}" for name in data}


def test_what_replaces_an_object_has_another_tag_and_is_not_mixed_with_it(server: Service, tmp_path: Path) -> None:
    uri = filled(server, {"x": b"one"})
    place = open_place(uri)
    (before,) = place.listed().objects
    server.write(uri, "x", b"two")
    (after,) = place.listed().objects
    assert before.tag != after.tag
    for read in (lambda: place.read(before, 0, 3), lambda: place.fetch(before, tmp_path / "x")):
        with pytest.raises(JobError, match=r"GTJ0113 an object of the data is not what was listed .*/x\): it (was replaced|is missing)"):
            read()
    assert place.read(after, 0, 3) == b"two"
    server.delete(uri, "x")
    with pytest.raises(JobError, match=r"GTJ0113 an object of the data .*/x\): it (is missing|was replaced)"):
        place.read(after, 0, 3)


def test_more_objects_than_a_page(server: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    if server.name in ("moto", "fake-gcs-server"):
        pytest.skip("versitygw says the same faster" if server.name == "moto" else "it lists everything in one page, whatever it is asked")
    count = 1003 if server.scheme == "s3" else 30
    uri = filled(server, {f"{number:04d}": b"1" for number in range(count)})
    if server.name == "azurite":
        from azure.storage.blob import ContainerClient

        whole = ContainerClient.list_blobs
        monkeypatch.setattr(ContainerClient, "list_blobs", lambda self, **given: whole(self, results_per_page=7, **given))
    assert [each.name for each in open_place(uri).listed().objects] == [f"{number:04d}" for number in range(count)]


def test_large_objects_come_in_ranges(server: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 100_000)
    data = os.urandom(1_234_567)
    uri = filled(server, {"x": data})
    place = open_place(uri)
    (found,) = place.listed().objects
    place.fetch(found, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data
    assert place.read(found, 99_999, 1_000_001) == data[99_999:1_000_001]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wire_that_fails_loses_nothing(server: Service, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {f"{number}.bin": os.urandom(200_000) for number in range(8)}
    uri = filled(server, data)
    monkeypatch.setattr(module, "PART", 70_000)
    for one in (s3, az):
        monkeypatch.setattr(one, "ANSWER", 1.0)
    monkeypatch.setattr(gs, "ONCE", {"timeout": (10.0, 1.0), "retry": None})
    with wire(server.port) as between:
        for name, value in server.environ(between.server_port).items():
            monkeypatch.setenv(name, value)
        place = open_place(uri, patience=Patience(120.0, chance=lambda: 0.0))
        between.fault = fault
        listed = place.listed()
        with DiskShelf(tmp_path, 10**7).hold(place, listed.objects) as paths:
            assert {each.name: path.read_bytes() for each, path in zip(listed.objects, paths, strict=True)} == data
        assert between.done[fault] >= 3


def test_an_epoch_through_a_cache_of_a_twentieth_of_the_data(server: Service, tmp_path: Path) -> None:
    """Shards of 1 MB: never more than the limit on the disk, and no shard fetched twice."""
    data = {f"{number:03d}.tar": bytes([number]) * 1_000_000 for number in range(100)}
    uri = filled(server, data)
    place, limit = open_place(uri), 5 * 1_003_520
    objects, shelf = place.listed().objects, DiskShelf(tmp_path, limit)
    for number, each in enumerate(objects):
        shelf.ahead(place, objects[number + 1 : number + 3])
        with shelf.hold(place, [each]) as (path,):
            assert path.read_bytes() == data[each.name]
        assert on_disk(tmp_path) <= limit
    assert shelf.counts.fetched_bytes == sum(map(len, data.values())) == 100_000_000
    assert shelf.counts.dropped >= 95


def test_a_bucket_that_is_away_is_told_and_read_when_it_is_back(server: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {f"{number}": bytes([number]) * 1000 for number in range(4)}
    uri = filled(server, data)
    with wire(server.port) as between:
        for name, value in server.environ(between.server_port).items():
            monkeypatch.setenv(name, value)
        place, shelf = open_place(uri, patience=Patience(1.0)), DiskShelf(tmp_path, 10**7)
        objects = place.listed().objects
        with shelf.hold(place, objects[:2]) as here:
            between.fault, between.every = "503", 1
            with pytest.raises(JobError) as caught, shelf.hold(place, objects):
                raise AssertionError
            assert [path.read_bytes() for path in here] == [*data.values()][:2]  # training goes on from what is there
        assert (caught.value.code, caught.value.exit_code) == ("GTJ0219", 5)
        assert caught.value.where == f"{uri}/2"
        assert "503" in caught.value.why or "Service" in caught.value.why
        between.fault = None
        with shelf.hold(place, objects) as paths:
            assert [path.read_bytes() for path in paths] == [*data.values()]
    assert shelf.counts.fetched_bytes == 4000


def test_the_first_requests_may_be_made_by_many_threads_at_once(server: Service) -> None:
    data = {f"{number}": bytes([number]) * 1000 for number in range(16)}
    uri = filled(server, data)
    objects = open_place(uri).listed().objects
    for _ in range(3):
        place = open_place(uri)  # as on a rank that lists nothing
        with ThreadPoolExecutor(16) as pool:
            assert [*pool.map(place.read, objects, [0] * 16, [1000] * 16)] == [data[each.name] for each in objects]


def test_nothing_there(server: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = filled(server, {"faces/1.jpg": b"1", "b.txt": b"2"})
    with pytest.raises(JobError, match=rf"GTJ0113 the data does not exist \({uri}/face\): {uri}/ holds b.txt, faces/. mend data.source"):
        open_place(f"{uri}/face").listed()
    missing = uri.replace(f"/{BUCKET}/", "/nobodys/")
    with pytest.raises(JobError, match=rf"GTJ0113 the data's bucket does not exist \({missing}\): .*") as caught:
        open_place(missing, patience=Patience(20.0)).listed()
    assert caught.value.exit_code == 7


def test_credentials_that_are_not_good(server: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    if server.name in ("moto", "fake-gcs-server"):
        pytest.skip("it lets everybody in")
    uri = filled(server, {"x": b"1"})
    if server.scheme == "s3":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    else:
        told = server.environ()["AZURE_STORAGE_CONNECTION_STRING"]
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told.replace("AccountKey=E", "AccountKey=F"))
    whom = "access key testing" if server.scheme == "s3" else f"the key of account {ACCOUNT}"
    with pytest.raises(JobError, match=rf"GTJ0112 the data cannot be read \({uri}\): .*List.* was refused to .*{whom}.*: .*"):
        open_place(uri).listed()


def test_an_endpoint_where_nobody_listens(server: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environ(1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        JobError, match=r"GTJ0219 the data does not answer .* failed \d+ times in \d s, the last time with: .*see that the buc"
    ):
        open_place(server.fresh(), patience=Patience(1.0)).listed()
