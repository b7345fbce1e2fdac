"""Small objects on a shelf: many of them in one file, a crate, which is fetched, kept and dropped as one object is.

A crate begins with what is in it: MAGIC, the number of members, a CRC of the list, and the list (key, start, size, CRC of each), then
their bytes. It is not synced: what a power cut leaves of it does not have its CRCs, and is fetched again. While it is fetched its list is
there already, so that no two processes fetch an object at once.

A member is read without a lock: a crate that is dropped meanwhile stays readable for who opened it, and who comes later fetches anew.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from zlib import crc32

from trainjobs.data.places.place import SMALL

MEMBERS = 64  # of a crate, at most
MARK = "c0de"  # how keys of crates begin; the magic tells them from other objects whose keys begin so
MAGIC = b"gentrain-crate-1"
HEAD = struct.Struct("<16sII")
MEMBER = struct.Struct("<16sIII")  # key, start, size, CRC
TICK = 50_000_000  # nanoseconds

Member = tuple[bytes, int, int, int]


def name_of(keys: Sequence[str]) -> str:
    """The key of a crate: the same members, in whichever process, make the same."""
    return MARK + hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[: 32 - len(MARK)]


def head_size(members: int) -> int:
    """Bytes that stand before the first of so many."""
    return HEAD.size + MEMBER.size * members


def size_of(sizes: Sequence[int]) -> int:
    """Bytes of a crate with members of these sizes."""
    return head_size(len(sizes)) + sum(sizes)


def listed(sizes: Mapping[str, int]) -> bytes:
    """The beginning of a crate whose members are on their way."""
    return _head(sizes, {})


def packed(sizes: Mapping[str, int], contents: Mapping[str, bytes]) -> bytes:
    """A crate: of the members that it was to have, those that arrived. As large as with all of them."""
    there = {key: size for key, size in sizes.items() if key in contents}
    return b"".join([_head(there, contents), *(contents[key] for key in there)]).ljust(size_of([*sizes.values()]), b"\0")


def crc_of(key: bytes, data: bytes) -> int:
    """Of a member; another object's bytes have another."""
    return crc32(data, crc32(key))


def _head(sizes: Mapping[str, int], contents: Mapping[str, bytes]) -> bytes:
    start, members = head_size(len(sizes)), list[bytes]()
    for name, size in sizes.items():
        key = bytes.fromhex(name)
        members.append(MEMBER.pack(key, start, size, crc_of(key, contents.get(name, b""))))
        start += size
    data = b"".join(members)
    return HEAD.pack(MAGIC, len(sizes), crc32(data)) + data


def read_list(path: Path) -> bytes | None:
    """The list of a crate, MEMBER after MEMBER, also of one on its way. None of what is no crate, or damaged. Raises FileNotFoundError."""
    with open(path, "rb", buffering=0) as file:
        found = file.read(HEAD.size + MEMBER.size * MEMBERS)
    if len(found) < HEAD.size:
        return None
    magic, count, crc = HEAD.unpack_from(found)
    data = found[HEAD.size : HEAD.size + MEMBER.size * count]
    if magic != MAGIC or count > MEMBERS or crc32(data) != crc:
        return None
    return data


class Crates:
    """Which objects lie in which crate of a folder. 200 bytes of memory for each object."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, Lock()
        self._seen = -1  # when the folder was changed last, when it was looked at
        self._members: dict[str, bytes] = {}  # the list of each crate
        self._crates: list[str] = []  # by their numbers
        self._numbers: dict[str, int] = {}
        self._where: dict[int, int] = {}  # of each object: its crate's number and which of its members it is
        self._coming: dict[int, str] = {}  # of objects that some process fetches: their crates
        self._unread: dict[str, int] = {}  # how many of a crate's members are still to be read

    def look(self) -> None:
        """At what other processes brought and dropped, if anything changed."""
        with self._lock:
            if (seen := os.stat(self._folder).st_mtime_ns) == self._seen:
                return
            there, coming, told = set[str](), dict[int, str](), True
            for entry in os.scandir(self._folder):
                key, _, rest = entry.name.partition(".")
                if not key.startswith(MARK) or rest not in ("", "partial"):
                    continue
                with suppress(FileNotFoundError):
                    if rest:
                        members = read_list(Path(entry.path))
                        told &= members is not None  # else it is being written: that changes no time
                        coming |= {_number(member[0]): key for member in MEMBER.iter_unpack(members or b"")}
                    else:
                        there.add(key)
                        if key not in self._members and (members := read_list(Path(entry.path))) is not None:
                            self._add(key, members)
            for key in self._members.keys() - there:
                self._forget(key)
            # What changes within the same tick of the file system's clock changes no time.
            self._coming, self._seen = coming, seen if told and time.time_ns() - seen > TICK else -1

    def add(self, crate: str, path: Path) -> bool:
        """One that is here; False when it is damaged. One that is known already is found anew: what it has may have been in another crate,
        too, and have been forgotten with that one."""
        with suppress(FileNotFoundError), self._lock:  # dropped already
            members = self._members.get(crate)
            if members is None and (members := read_list(path)) is None:
                return False
            self._add(crate, members)
        return True

    def has(self, keys: Iterable[str]) -> set[str]:
        """Those that are here."""
        with self._lock:
            return {key for key in keys if _number(bytes.fromhex(key)) in self._where}

    def coming(self, key: str) -> str | None:
        """The crate with which some process fetched an object when it was looked last."""
        return self._coming.get(_number(bytes.fromhex(key)))

    def read(self, wanted: Mapping[str, int]) -> tuple[dict[str, bytes], set[str], set[str]]:
        """Of objects (keys and sizes) those that are here and whole; the crates of which everything has been read now; and those that are
        damaged."""
        crates: dict[str, list[tuple[str, Member]]] = {}
        with self._lock:
            for key in wanted:
                if (at := self._where.get(_number(bytes.fromhex(key)))) is not None:
                    crate = self._crates[at // MEMBERS]
                    crates.setdefault(crate, []).append((key, MEMBER.unpack_from(self._members[crate], at % MEMBERS * MEMBER.size)))
        found, done, damaged = dict[str, bytes](), set[str](), set[str]()
        for crate, members in crates.items():
            try:
                file = os.open(self._folder / crate, os.O_RDONLY)
            except FileNotFoundError:
                with self._lock:
                    self._forget(crate)
                continue
            try:
                for key, (name, start, size, crc) in members:
                    data = os.pread(file, size, start)
                    if len(data) != wanted[key] or name.hex() != key or crc_of(name, data) != crc:
                        damaged.add(crate)
                    else:
                        found[key] = data
            finally:
                os.close(file)
            with self._lock:
                self._unread[crate] = self._unread.get(crate, 0) - len(members)
                if self._unread[crate] <= 0:
                    self._unread[crate] = len(self._members.get(crate, b"")) // MEMBER.size
                    done.add(crate)
        with self._lock:
            for crate in damaged:
                self._forget(crate)
        return found, done, damaged

    def _add(self, crate: str, members: bytes) -> None:
        number = self._numbers.setdefault(crate, len(self._crates))
        if number == len(self._crates):
            self._crates.append(crate)
        self._members[crate], self._unread[crate] = members, len(members) // MEMBER.size
        for place, member in enumerate(MEMBER.iter_unpack(members)):
            self._where[_number(member[0])] = number * MEMBERS + place

    def _forget(self, crate: str) -> None:
        number = self._numbers.get(crate, -1)
        for place, member in enumerate(MEMBER.iter_unpack(self._members.pop(crate, b""))):
            key = _number(member[0])
            if self._where.get(key) == number * MEMBERS + place:
                del self._where[key]
        self._unread.pop(crate, None)


def _number(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")


assert MEMBERS * (SMALL + MEMBER.size) + HEAD.size < 2**32, "starts are 32 bits"
