"""The members of a tar archive, from its headers: ustar, GNU (long names) and pax. Payloads are skipped, nothing is unpacked."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from trainjobs.api.errors import JobError
from trainjobs.data.forms.ranges import Read

BLOCK = tarfile.BLOCKSIZE
LONGEST = 1 << 20  # bytes of a long name or of pax records; names are short
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PLAIN = (tarfile.REGTYPE[0], tarfile.AREGTYPE[0])
_REFUSED = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class Member(NamedTuple):
    """A regular file in an archive: bytes start..start + size of it."""

    name: str
    start: int
    size: int


def members(read: Read, size: int, where: str) -> Iterator[Member]:
    """The regular files of an archive of `size` bytes, in their order; folders are passed over.

    JobError GTJ0113 names the archive and the byte: one that ends amid a member, a header that is none, and a member that is anything
    but a file, or whose name leaves the folder it would be unpacked in.
    """
    at, name, records = 0, "", dict[str, str]()
    last = ""
    while at < size:
        header = read(at, at + BLOCK)
        if not name and not records and (plain := _plain(header)) is not None and at + BLOCK + plain[1] <= size:
            last, length = plain
            yield Member(last, at + BLOCK, length)
            at += BLOCK + -(-length // BLOCK) * BLOCK
            continue
        if len(header) < BLOCK:
            raise _cut(where, at, size, last)
        if not header.strip(b"\0"):
            return  # the end's mark; what follows is padding
        try:
            found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            what = "is no tar archive" if at == 0 else f"has no tar header at byte {at:,}"
            why = f"{error}{f'; the last good member is {last}' if last else ''}"
            raise JobError("GTJ0113", f"the shard {what}", where=where, why=why, how="write it again with tar") from error
        start, length = at + BLOCK, int(records.get("size", found.size)) if records.get("size", "0").isdigit() else found.size
        stop = start + length if found.type not in (tarfile.DIRTYPE, *_REFUSED) else start
        if length < 0 or stop > size:
            raise _cut(where, at, size, last, records.get("path", name or found.name), length)
        at = start + -(-(stop - start) // BLOCK) * BLOCK
        if found.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
            text = _text(read, start, length, where)
            if found.type == tarfile.GNUTYPE_LONGNAME:
                name = text.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            elif found.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                records = _pax(text, where, start)
            continue
        full, sparse = records.get("path", name or found.name), any(key.startswith("GNU.sparse") for key in records)
        name, records = "", {}
        if found.type == tarfile.DIRTYPE or (found.type == tarfile.AREGTYPE and full.endswith("/")):
            continue
        kind = "a sparse file" if sparse else _REFUSED.get(found.type, "" if found.type in _FILES else f"of type {found.type!r}")
        if kind:
            how = "write the shard again with the files themselves: tar --dereference --hard-dereference"
            raise JobError("GTJ0113", f"the member {full} is {kind}", where=where, why="only files are read from an archive", how=how)
        if full.startswith(("/", "\\")) or ".." in full.replace("\\", "/").split("/"):
            why, how = "its name leaves the folder that it belongs to", "write the shard again with plain names; nothing was unpacked"
            raise JobError("GTJ0113", f"the archive climbs: {full}", where=where, why=why, how=how)
        last = full
        yield Member(full, start, length)


def _plain(header: bytes) -> tuple[str, int] | None:
    """Name and bytes of a file whose header says nothing but what nearly all say, and says it well; None where tarfile is to look. It looks
    at each of 16 fields, which takes ten times as long, and of small pictures that is a tenth of an epoch."""
    if len(header) != BLOCK or header[156] not in _PLAIN or header[345] or not header.isascii():  # a prefix of the name
        return None
    try:
        told, length = int(header[148:156].partition(b"\0")[0], 8), int(header[124:136].partition(b"\0")[0], 8)
    except ValueError:
        return None
    # The sum counts itself as eight spaces. Of ASCII it is less than the 65,521 beyond which Adler's begins anew.
    if told != _sum(header) - _sum(header[148:156]) + 8 * ord(" ") or length < 0:
        return None
    name = header[:100].partition(b"\0")[0].decode("ascii")
    return None if name.startswith(("/", "\\")) or name.endswith("/") or ".." in name else (name, length)


def _sum(data: bytes) -> int:
    """Of the bytes, modulo 65,521: twelve times as fast as `sum`."""
    return (zlib.adler32(data) - 1) & 0xFFFF


def _text(read: Read, start: int, length: int, where: str) -> bytes:
    if length > LONGEST:
        why = f"{length:,} bytes of a name at byte {start:,}, more than {LONGEST:,}"
        raise JobError("GTJ0113", "a name in the archive is too long", where=where, why=why, how="write the shard again with short names")
    return read(start, start + length)


def _pax(text: bytes, where: str, at: int) -> dict[str, str]:
    """Records "length key=value\\n" of POSIX.1-2001."""
    records, start = dict[str, str](), 0
    while start < len(text) and text[start] != 0:
        count, space, _ = text[start : start + 20].partition(b" ")
        stop = start + int(count) if space and count.isdigit() else 0
        key, equals, value = text[start + len(count) + 1 : stop - 1].partition(b"=")
        if not equals or not start + len(count) + 1 < stop <= len(text):  # a record that ended before it began would be read for ever
            why = f"the extended header at byte {at:,} is broken"
            raise JobError("GTJ0113", "the shard is no tar archive that can be read", where=where, why=why, how="write it again with tar")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        start = stop
    return records


def _cut(where: str, at: int, size: int, last: str, name: str = "", length: int = 0) -> JobError:
    amid = f"amid {name}, which has {length:,} bytes" if name else "amid a header"
    good = f"it is good up to byte {at:,}, with {last} as its last member" if last else "no member of it is whole"
    why = f"its {size:,} bytes end {amid}; {good}"
    return JobError("GTJ0113", "the shard is cut short", where=where, why=why, how="copy it again, or write it again")
