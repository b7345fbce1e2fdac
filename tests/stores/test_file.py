"""A folder keeps the promises of a store: whole objects, one winner, durable when it says so, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from trainjobs.stores import file
from trainjobs.stores.file import FileStore
from trainjobs.stores.store import Entry, Missing, StoreError, check_key


def test_an_object_is_created_once(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "deep" / "root")
    assert store.put_if_absent("log/1.json", b"first")
    assert not store.put_if_absent("log/1.json", b"second")
    assert store.get("log/1.json") == b"first"
    assert [path.name for path in (tmp_path / "deep" / "root" / "log").iterdir()] == ["1.json"]


def test_of_many_threads_one_wins_and_nobody_sees_a_part(tmp_path: Path) -> None:
    rounds, writers = 30, 8
    wins: list[tuple[int, int]] = []
    seen: list[bytes] = []
    gate = threading.Barrier(writers)

    def write(writer: int) -> None:
        store = FileStore(tmp_path)
        for number in range(rounds):
            gate.wait()
            if store.put_if_absent(f"log/{number}", bytes([writer]) * 10_000):
                wins.append((number, writer))
            seen.append(store.get(f"log/{number}"))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in wins) == list(range(rounds))
    for number, writer in wins:
        assert tmp_path.joinpath("log", str(number)).read_bytes() == bytes([writer]) * 10_000
    assert len(seen) == rounds * writers
    assert all(len(data) == 10_000 and len(set(data)) == 1 for data in seen)


def test_upload_gives_the_digest_of_what_is_stored(tmp_path: Path) -> None:
    big, empty = tmp_path / "big", tmp_path / "empty"
    big.write_bytes(os.urandom(file.BLOCK + 12345))
    empty.write_bytes(b"")
    stored = FileStore(tmp_path / "root").upload([(big, "steps/x/rank-0/big"), (empty, "steps/x/rank-0/sub/empty")])
    kept = tmp_path / "root" / "steps" / "x" / "rank-0" / "big"
    assert kept.read_bytes() == big.read_bytes()
    assert kept.stat().st_ino != big.stat().st_ino, "the caller goes on writing into its files"
    assert [part.digest for part in stored] == [f"blake3:{blake3(path.read_bytes()).hexdigest()}" for path in (big, empty)]
    assert [part.size for part in stored] == [file.BLOCK + 12345, 0]
    assert [path.name for path in kept.parent.iterdir() if path.name.startswith(".tmp")] == []


@pytest.mark.parametrize("same", [True, False])
def test_a_second_upload_takes_the_place_of_the_first(same: bool, tmp_path: Path) -> None:
    source, store = tmp_path / "a", FileStore(tmp_path / "root")
    source.write_bytes(b"one")
    store.upload([(source, "k/a")])
    if not same:
        source.unlink()
        source.write_bytes(b"other")
    store.upload([(source, "k/a")])
    assert store.get("k/a") == source.read_bytes()
    assert os.listdir(tmp_path / "root" / "k") == ["a"]


def test_listing_and_clearing(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    assert store.entries("steps") == []
    assert store.folders("steps") == []
    for key in ("steps/b/1", "steps/a/x/2", "steps/a/1", "steps/loose"):
        store.put_if_absent(key, b"abc")
    (tmp_path / "steps" / "a" / ".tmp-123").write_bytes(b"left by a kill")
    assert store.entries("steps") == [Entry(key, 3) for key in ("steps/a/1", "steps/a/x/2", "steps/b/1", "steps/loose")]
    assert store.folders("steps") == ["steps/a", "steps/b"]
    store.clear("steps/a")
    store.clear("steps/never")
    assert store.folders("steps") == ["steps/b"]
    assert not (tmp_path / "steps" / "a").exists()
    assert store.put_if_absent("steps/a/1", b"again"), "a cleared folder can be made again"


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put_if_absent("a/b", b"")
    for key in ("a/c", "a", "a/b/c", "x/y"):
        with pytest.raises(Missing, match="is missing"):
            store.get(key)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../b", "..", "a//b", "./a", "a/.tmp-1", "a\\b", "a\0b", "a/"])
def test_keys_stay_inside(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a key"):
        check_key(key)
    with pytest.raises(ValueError, match="not a key"):
        FileStore(tmp_path).put_if_absent(key, b"")


REFUSALS = [(errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EFBIG, "full"), (errno.EACCES, "denied"), (errno.EROFS, "denied")]
SILENCES = [(errno.EIO, "failed"), (errno.ESTALE, "failed")]


@pytest.mark.parametrize(("number", "reason"), REFUSALS + SILENCES)
@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_create_that_the_system_refuses_leaves_nothing(
    call: str, number: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path)
    store.put_if_absent("k/before", b"abc")
    monkeypatch.setattr(os, call, refusing(number))
    with pytest.raises(StoreError) as caught:
        store.put_if_absent("k/put", b"abc")
    assert (caught.value.reason, caught.value.why, caught.value.key) == (reason, os.strerror(number), "k/put")
    assert os.listdir(tmp_path / "k") == ["before"]


@pytest.mark.parametrize(("number", "reason"), REFUSALS + SILENCES)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_upload_that_the_system_refuses_leaves_the_source(
    call: str, number: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, source = FileStore(tmp_path / "root"), tmp_path / "a"
    source.write_bytes(b"abc")
    store.put_if_absent("k/before", b"abc")
    monkeypatch.setattr(os, call, refusing(number))
    with pytest.raises(StoreError) as caught:
        store.upload([(source, "k/upload")])
    assert (caught.value.reason, caught.value.why, caught.value.key) == (reason, os.strerror(number), "k/upload")
    assert os.listdir(tmp_path / "root" / "k") == ["before"]
    assert source.read_bytes() == b"abc"


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    tmp_path.joinpath("root").write_bytes(b"")
    with pytest.raises(StoreError, match="Not a directory") as caught:
        FileStore(tmp_path / "root").put_if_absent("a", b"")
    assert caught.value.reason == "denied"


def test_a_medium_that_cannot_read_back_has_lost_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)
    store.put_if_absent("a", b"abc")
    monkeypatch.setattr("builtins.open", refusing(errno.EIO))
    with pytest.raises(Missing, match="Input/output error"):
        store.get("a")


def refusing(number: int) -> Callable[..., None]:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse
