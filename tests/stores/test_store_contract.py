"""Every store keeps the same promises, on a real server: what trainjobs/stores/store.py says, and nothing that one of them adds."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from tests.stores.servers import Service
from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, open_store
from trainjobs.stores.objects import WORKERS, ObjectStore
from trainjobs.stores.store import BlobStore, Entry, Missing

pytestmark = pytest.mark.slow
MIB = 1 << 20
Opened = tuple[BlobStore, Callable[[], dict[str, bytes]]]


@pytest.fixture(params=["file", "moto", "versitygw", "fake-gcs-server", "azurite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A store, and a look at all of its objects that does not go through it."""
    if request.param == "file":
        from second_reader import load

        return open_store(f"file://{tmp_path}/root"), lambda: load(tmp_path / "root")
    server: Service = request.getfixturevalue("start")(request.param)
    for name, value in server.environ().items():
        monkeypatch.setenv(name, value)
    uri = server.fresh()
    return open_store(uri), lambda: server.load(uri)


def test_an_object_is_created_once(opened: Opened) -> None:
    store, look = opened
    assert store.put_if_absent("log/1.json", b"first")
    assert not store.put_if_absent("log/1.json", b"second")
    assert store.get("log/1.json") == b"first"
    assert look() == {"log/1.json": b"first"}


def test_of_many_threads_one_wins(opened: Opened, request: pytest.FixtureRequest) -> None:
    if "[moto]" in request.node.name:
        pytest.skip("moto looks and then writes, in threads: of requests at the same moment more than one may win")
    store, look = opened
    wins: list[tuple[int, int]] = []
    gate = threading.Barrier(8)

    def write(writer: int) -> None:
        for number in range(5):
            gate.wait(60)
            if store.put_if_absent(f"log/{number}", bytes([writer]) * 1000):
                wins.append((number, writer))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in wins) == list(range(5))
    assert look() == {f"log/{number}": bytes([writer]) * 1000 for number, writer in wins}


def test_files_go_up_and_come_down(opened: Opened, tmp_path: Path) -> None:
    """Empty, small, exactly a part, several parts, more than are sent at a time; twice, the second in place of the first."""
    store, look = opened
    part = 5 * MIB  # the least that S3 takes
    if isinstance(store, ObjectStore):
        store._part = part
    for most in (part * (WORKERS + 1) + 17, 3):
        sizes = {"empty": 0, "small": 1000, "sub/whole": part, "sub/parts": part + 1, "most": most}
        content = {name: os.urandom(size) for name, size in sizes.items()}
        for name, data in content.items():
            path = tmp_path / "from" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(data)
        stored = store.upload([(tmp_path / "from" / name, f"steps/x/{name}") for name in sizes])
        assert [part.size for part in stored] == list(sizes.values())
        assert [part.digest for part in stored] == [f"blake3:{blake3(data).hexdigest()}" for data in content.values()]
        assert look() == {f"steps/x/{name}": data for name, data in content.items()}
        for name, data in content.items():
            assert b"".join(store.read(f"steps/x/{name}")) == data
    assert store.entries("steps") == [Entry(f"steps/x/{name}", sizes[name]) for name in sorted(sizes)]


def test_listing_and_clearing(opened: Opened) -> None:
    store, look = opened
    assert store.entries("steps") == []
    assert store.folders("steps") == []
    for key in ("steps/b/1", "steps/a/x/2", "steps/a/1", "steps/loose", "steps/ab/1"):
        store.put_if_absent(key, b"abc")
    assert store.entries("steps") == [Entry(key, 3) for key in ("steps/a/1", "steps/a/x/2", "steps/ab/1", "steps/b/1", "steps/loose")]
    assert store.folders("steps") == ["steps/a", "steps/ab", "steps/b"]
    assert store.folders("") == ["steps"]
    assert store.folders("steps/a") == ["steps/a/x"]
    store.clear("steps/a")
    store.clear("steps/never")
    assert sorted(look()) == ["steps/ab/1", "steps/b/1", "steps/loose"]
    assert store.put_if_absent("steps/a/1", b"again"), "a cleared folder can be made again"


def test_a_long_listing_is_complete(opened: Opened) -> None:
    """More than one page of a thousand."""
    store, _ = opened
    if not isinstance(store, ObjectStore):
        pytest.skip("a folder has no pages")
    threads = [
        threading.Thread(target=lambda first=first: [store.put_if_absent(f"log/{n:016d}.json", b"") for n in range(first, 1010, 8)])
        for first in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.key for entry in store.entries("log")] == [f"log/{n:016d}.json" for n in range(1010)]


def test_what_is_not_there_is_missing(opened: Opened) -> None:
    store, _ = opened
    store.put_if_absent("a/b", b"")
    for key in ("a/c", "x/y"):
        with pytest.raises(Missing, match="is missing"):
            store.get(key)


def test_a_store_moves_to_another_process(opened: Opened) -> None:
    store, _ = opened
    store.put_if_absent("a", b"here")
    moved = pickle.loads(pickle.dumps(store))
    assert moved.get("a") == b"here"
    assert moved.uri == store.uri


def test_the_probe_accepts_it_and_leaves_nothing(opened: Opened) -> None:
    store, look = opened
    Checkpoints(store, keep=Keep()).probe()
    assert look() == {}


def test_a_file_that_is_replaced_while_it_is_read_is_not_mixed(server: Service, tmp_path: Path) -> None:
    uri = server.fresh()
    store = open_store(uri)
    assert isinstance(store, ObjectStore)
    store._part = 5 * MIB
    tmp_path.joinpath("a").write_bytes(b"1" * (30 * MIB * 5 // 3))
    store.upload([(tmp_path / "a", "k/a")])
    blocks = store.read("k/a")
    next(blocks)
    server.write(uri, "k/a", b"2" * (30 * MIB * 5 // 3))
    with pytest.raises(Missing, match=r"is missing|was replaced"):
        b"".join(blocks)
