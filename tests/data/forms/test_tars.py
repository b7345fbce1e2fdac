"""Headers of archives that Python's tarfile writes, and of broken ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.forms.laid import tar
from trainjobs.api.errors import JobError
from trainjobs.data.forms.ranges import skipping
from trainjobs.data.forms.tars import Member, members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = ["a.txt", "folder/b.txt", "./c.txt", "d" * 90 + ".txt", "e" * 60 + "/" + "f" * 90 + ".txt"]


def found(path: Path) -> list[Member]:
    archive = path.read_bytes()
    return list(members(lambda start, stop: archive[start:stop], len(archive), str(path)))


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_tarfiles(tmp_path: Path, form: str) -> None:
    names = NAMES if form == "ustar" else [*NAMES, "g" * 300 + ".txt", "ü/日本.txt"]
    path = tar(tmp_path / "a.tar", {name: name.encode() * number for number, name in enumerate(names)}, format=FORMATS[form])
    with tarfile.open(path) as archive:
        expected = [Member(info.name, info.offset_data, info.size) for info in archive]
    assert found(path) == expected
    assert [member.name for member in found(path)] == names


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_header_is_read_as_tarfile_reads_it(data: st.DataObject) -> None:
    """What is spoiled of name, size, checksum and type is refused as tarfile refuses it, or means what it means there."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(data.draw(st.sampled_from(["a.jpg", "b/c..jpg", "ü.jpg", "x" * 99]))))
    header = bytearray(file.getvalue()[:512])
    place = data.draw(st.sampled_from([0, 3, 124, 130, 135, 148, 150, 154, 156, 345]))
    header[place] = data.draw(st.sampled_from(b" 0019a+-_/\\\0\x80\xff"))
    if data.draw(st.booleans()):
        header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    raw = bytes(header)

    def read() -> list[tuple[str, int]]:
        return [(one.name, one.size) for one in members(lambda start, stop: raw[start:stop], len(raw), "a.tar")]

    try:
        info = tarfile.TarInfo.frombuf(raw, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        with pytest.raises(JobError):
            read()
        return
    if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and info.size == 0 and not info.name.startswith(("/", "\\")):
        assert read() == [(info.name, 0)]


def test_a_sum_that_is_wrong_by_what_adler_leaves_out_is_refused() -> None:
    """Adler's checksum counts modulo 65,521, which bytes above 127 reach."""
    header = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT))
    header[157:257], header[265:345], header[400:512] = b"\xff" * 100, b"\xff" * 80, b"\xff" * 112
    total = 256 + sum(header[:148]) + sum(header[156:])
    for wrong in (0, 65_521):
        header[148:156] = b"%06o\0 " % (total - wrong)
        raw = bytes(header)
        if not wrong:
            assert [one.name for one in members(lambda start, stop: raw[start:stop], len(raw), "a.tar")] == ["a.jpg"]  # noqa: B023
            continue
        with pytest.raises(JobError, match="GTJ0113 the shard is no tar archive"):
            list(members(lambda start, stop: raw[start:stop], len(raw), "a.tar"))  # noqa: B023


def test_folders_are_passed_over_and_nothing_follows_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("folder/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("folder/empty"))
    path.write_bytes(path.read_bytes() + b"padding that is no header" * 100)
    assert [member.name for member in found(path)] == ["folder/empty"]


@pytest.mark.parametrize("name", ["../up.txt", "a/../../b.txt", "/etc/passwd", "..\\up.txt"])
@pytest.mark.parametrize("form", FORMATS)
def test_archives_that_climb_are_refused(tmp_path: Path, name: str, form: str) -> None:
    path = tar(tmp_path / "a.tar", {"good.txt": b"", name: b""}, format=FORMATS[form])
    with pytest.raises(JobError) as raised:
        found(path)
    assert raised.value.code == "GTJ0113"
    assert raised.value.what == f"the archive climbs: {name}"
    assert raised.value.where == str(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, kind: bytes, words: str) -> None:
    info = tarfile.TarInfo("0001.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(JobError, match=f"GTJ0113 the member 0001.jpg is {words}"):
        found(path)


@pytest.mark.parametrize(("at", "good"), [(512 + 700, 0), (512 + 1024 + 300, 1), (512 + 1024 + 512 + 10, 1)])
def test_a_shard_cut_short_says_how_far_it_is_good(tmp_path: Path, at: int, good: int) -> None:
    path = tar(tmp_path / "a.tar", {"0.txt": bytes(1000), "1.txt": bytes(1000)})
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(JobError) as raised:
        found(path)
    assert (raised.value.code, raised.value.what, raised.value.where) == ("GTJ0113", "the shard is cut short", str(path))
    assert raised.value.why.startswith(f"its {at:,} bytes end amid ")
    assert raised.value.why.endswith("it is good up to byte 1,536, with 0.txt as its last member" if good else "no member of it is whole")


def test_an_archive_without_an_end_mark_is_whole(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"0.txt": bytes(1000)})
    path.write_bytes(path.read_bytes()[: 512 + 1024])
    assert len(found(path)) == 1


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"<html>" * 1000)
    with pytest.raises(JobError, match="GTJ0113 the shard is no tar archive"):
        found(tmp_path / "a.tar")
    path = tar(tmp_path / "b.tar", {"0.txt": bytes(1000)})
    path.write_bytes(path.read_bytes()[:1536] + b"junk" * 200)
    with pytest.raises(JobError, match=r"has no tar header at byte 1,536.*the last good member is 0.txt"):
        found(path)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=40))
def test_broken_archives_are_always_a_job_error(at: int, junk: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a" * 150 + ".txt", "ü.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 300
            archive.addfile(info, io.BytesIO(bytes(300)))
    broken = bytearray(buffer.getvalue())
    broken[at : at + len(junk)] = junk
    there, raised = list[Member](), None
    try:
        there = list(members(lambda start, stop: bytes(broken[start:stop]), len(broken), "a.tar"))
    except JobError as error:
        raised = error
    assert raised is None or raised.code == "GTJ0113"
    assert all(member.start >= 0 and member.start + member.size <= len(broken) for member in there)


@pytest.mark.parametrize("second", [b"x path=b\n", b"0 path=b\n", b"2 path=b\n", b"-9 path=b\n", b"99 path=b\n", b"9 path b\n"])
def test_an_extended_header_with_a_broken_record_has_an_end(second: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info, text = tarfile.TarInfo("header"), b"10 path=a\n" + second
        info.type, info.size = tarfile.XHDTYPE, len(text)
        archive.addfile(info, io.BytesIO(text))
    data = buffer.getvalue()
    with pytest.raises(JobError, match=r"GTJ0113 the shard is no tar archive that can be read .*the extended header at byte 512 is broken"):
        list(members(lambda start, stop: data[start:stop], len(data), "a.tar"))


def test_payloads_are_skipped_and_small_ones_read_on(tmp_path: Path) -> None:
    """Of large members about a kilobyte is read for each header; small ones come with few requests."""
    for size, count, most in ((200_000, 20, 21), (600, 2000, 30)):
        path = tar(tmp_path / f"{size}.tar", {f"{number}.bin": bytes(size) for number in range(count)})
        archive, asked = path.read_bytes(), list[int]()

        def read(start: int, stop: int, archive: bytes = archive, asked: list[int] = asked) -> bytes:
            asked.append(stop - start)
            return archive[start:stop]

        assert len(list(members(skipping(read, len(archive)), len(archive), "a"))) == count
        assert len(asked) <= most
        assert sum(asked) <= (0.02 * len(archive) if size > 100_000 else 1.1 * len(archive))
