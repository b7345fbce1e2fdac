"""Large files go past the page cache where their filesystem can, and are whole where it cannot."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainjobs.stores.direct import ALIGNED, BLOCK, DIRECT
from trainjobs.stores.file import FileStore

SIZES = [1, ALIGNED - 1, ALIGNED, ALIGNED + 1, BLOCK, BLOCK + 12_345]


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_is_there(size: int, tmp_path: Path) -> None:
    source = made(tmp_path / "source", size)
    FileStore(tmp_path / "root").upload([(source, "k/a")])
    assert (tmp_path / "root" / "k" / "a").read_bytes() == source.read_bytes()


def test_what_is_uploaded_takes_no_room_in_the_page_cache(tmp_path: Path) -> None:
    source = made(tmp_path / "source", BLOCK + 12_345)
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except (OSError, AttributeError):
        pytest.skip("this filesystem has no way past the page cache")
    FileStore(tmp_path / "root").upload([(source, "k/a")])
    assert resident(source) > BLOCK // mmap.PAGESIZE, "what was written plainly is in the page cache, so that this can be told"
    assert resident(tmp_path / "root" / "k" / "a") <= 1 + 12_345 // mmap.PAGESIZE


def test_a_filesystem_that_says_so_only_when_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: memoryview, real: Callable[[int, memoryview], int] = os.write) -> int:
        if flags(descriptor) & DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, data)

    source = made(tmp_path / "source", BLOCK + 12_345)
    monkeypatch.setattr(os, "write", write)
    FileStore(tmp_path / "root").upload([(source, "k/a")])
    assert (tmp_path / "root" / "k" / "a").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("first", [ALIGNED, 1000])
def test_a_write_that_is_cut_short(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()

    def write(descriptor: int, data: memoryview, real: Callable[[int, memoryview], int] = os.write) -> int:
        asked.append(len(data))
        plain = flags(descriptor) & ~DIRECT
        if len(asked) == 1 and first % ALIGNED:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, plain)  # so that it can be
        return real(descriptor, data[:first] if len(asked) == 1 else data)

    source = made(tmp_path / "source", 3 * ALIGNED + 5)
    monkeypatch.setattr(os, "write", write)
    FileStore(tmp_path / "root").upload([(source, "k/a")])
    assert len(asked) > 1
    assert (tmp_path / "root" / "k" / "a").read_bytes() == source.read_bytes()


def made(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def flags(descriptor: int) -> int:
    return int(fcntl.fcntl(descriptor, fcntl.F_GETFL))


def resident(path: Path) -> int:
    """Pages of a file that are in the page cache, mincore(2)."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        told, start = (ctypes.c_ubyte * pages)(), ctypes.c_char.from_buffer(mapped)
        code = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), told)
        del start
        assert code == 0, os.strerror(ctypes.get_errno())
        return sum(page & 1 for page in told)
