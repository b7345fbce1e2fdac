"""Derived files are whole or not there."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from trainjobs.api.errors import JobError
from trainjobs.data.cache import cached


def test_written_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    assert cached(path, lambda file: file.write(b"one") and None).read_bytes() == b"one"
    assert cached(path, lambda file: pytest.fail("written again")).read_bytes() == b"one"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached(tmp_path / "a.bin", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin.lock"]


def test_a_full_disk_is_a_job_error(tmp_path: Path) -> None:
    def full(file: BinaryIO) -> None:
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")

    with pytest.raises(JobError, match=r"GTJ0114 .*No space left on device"):
        cached(tmp_path / "a.bin", full)


def test_a_folder_that_cannot_be_made_is_a_job_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JobError, match="GTJ0114"):
        cached(tmp_path / "file" / "a.bin", lambda file: None)


def test_whoever_comes_second_waits_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    begun, finish, results = threading.Event(), threading.Event(), list[bytes]()

    def slow(file: BinaryIO) -> None:
        file.write(b"fir")
        file.flush()
        begun.set()
        finish.wait(10)
        file.write(b"st")

    first = threading.Thread(target=lambda: results.append(cached(path, slow).read_bytes()))
    first.start()
    assert begun.wait(10)
    assert not path.exists()
    second = threading.Thread(target=lambda: results.append(cached(path, lambda file: pytest.fail("written twice")).read_bytes()))
    second.start()
    finish.set()
    first.join(10)
    second.join(10)
    assert results == [b"first", b"first"]


@pytest.mark.slow
def test_processes_race_to_the_same_file(tmp_path: Path) -> None:
    path, children = tmp_path / "a.bin", []
    for number in range(4):
        if (child := os.fork()) == 0:
            cached(path, lambda file, number=number: file.write(bytes([number]) * 100_000) and None)  # type: ignore[misc]
            os._exit(0 if len(set(path.read_bytes())) == 1 else 1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.bin", "a.bin.lock"]


@pytest.mark.slow
def test_a_process_that_is_forked_meanwhile_keeps_nobody_waiting(tmp_path: Path) -> None:
    """It has the lock's file open for as long as it lives."""
    path, children = tmp_path / "a.bin", []

    def write(file: BinaryIO) -> None:
        if (child := os.fork()) == 0:
            signal.pause()
        children.append(child)
        raise JobError("GTJ0113", "it cannot be read")

    with pytest.raises(JobError):
        cached(path, write)
    got: list[bytes] = []
    waiting = threading.Thread(target=lambda: got.append(cached(path, lambda file: file.write(b"x") and None).read_bytes()), daemon=True)  # type: ignore[func-returns-value]
    waiting.start()
    waiting.join(20)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert got == [b"x"]
