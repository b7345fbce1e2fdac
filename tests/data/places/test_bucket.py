"""Buckets as places: what a URI names, what is left out, and what is said when there is nothing, or no answer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.data.places.memory import Clock, MemoryBucket, Said, place
from trainjobs.api.errors import JobError
from trainjobs.data.places import bucket as module
from trainjobs.data.places.open import AMID
from trainjobs.stores.bucket import Trouble

FACES = {
    "faces/a/1.jpg": b"11",
    "faces/a/2.jpg": b"222",
    "faces/b/1.jpg": b"4444",
    "faces.txt": b"5",
    "other/x.tar": b"66",
    "top.txt": b"7",
}


def names(bucket: MemoryBucket, path: str) -> list[str]:
    return [each.name for each in place(bucket, path).listed().objects]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("faces", ["a/1.jpg", "a/2.jpg", "b/1.jpg"]),
        ("faces/", ["a/1.jpg", "a/2.jpg", "b/1.jpg"]),
        ("faces/a/2.jpg", ["2.jpg"]),
        ("top.txt", ["top.txt"]),
        ("", ["faces.txt", "faces/a/1.jpg", "faces/a/2.jpg", "faces/b/1.jpg", "other/x.tar", "top.txt"]),
        ("faces/*/1.jpg", ["a/1.jpg", "b/1.jpg"]),
        ("faces/{a,b}/1.jpg", ["a/1.jpg", "b/1.jpg"]),
        ("faces/{b,a}", ["a/1.jpg", "a/2.jpg", "b/1.jpg"]),
        ("**/[12].jpg", ["faces/a/1.jpg", "faces/a/2.jpg", "faces/b/1.jpg"]),
    ],
)
def test_what_a_uri_names(path: str, found: list[str], tmp_path: Path) -> None:
    bucket = MemoryBucket(FACES)
    opened = place(bucket, path)
    listed = opened.listed()
    assert [each.name for each in listed.objects] == found
    for number, each in enumerate(listed.objects):
        key = opened.where(each).removeprefix("s3://bucket/")
        assert opened.read(each, 0, each.size) == FACES[key]
        assert opened.read(each, 1, 99) == FACES[key][1:]
        opened.fetch(each, tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == FACES[key]


def test_names_hold_on_a_rank_that_lists_nothing() -> None:
    """Rank 0 lists, and the others read what it found."""
    bucket = MemoryBucket(FACES)
    for path, key in (
        ("faces", "faces/a/1.jpg"),
        ("top.txt", "top.txt"),
        ("faces/a/1.jpg", "faces/a/1.jpg"),
        ("f*/a/1.jpg", "faces/a/1.jpg"),
    ):
        (first, *_) = place(bucket, path).listed().objects
        assert place(bucket, path).read(first, 0, 9) == FACES[key]


def test_keys_that_a_checkpoint_would_refuse_are_read() -> None:
    odd = ["d/a//b.jpg", "d/../c.jpg", "d/with space.jpg", "d/ü%20.jpg", "d/a\\b.jpg", "d/#?.jpg", "d/tmp.tmp-x.jpg", "d//x.jpg"]
    bucket = MemoryBucket({key: key.encode() for key in odd})
    opened = place(bucket, "d")
    listed = opened.listed()
    assert {each.name for each in listed.objects} == {key[2:] for key in odd} - {"../c.jpg"}  # its folder's name begins with a dot
    assert all(opened.read(each, 0, 99) == f"d/{each.name}".encode() for each in listed.objects)


def test_what_is_left_out_of_a_folder_is_left_out_of_a_bucket() -> None:
    keys = {"d/": b"", "d/a/": b"", "d/a/1.jpg": b"1", "d/.x.jpg": b"1", "d/.git/y": b"1", "d/.git/z": b"1", "d/b/@eaDir/1.jpg": b"1"}
    bucket = MemoryBucket(
        {**keys, "d/folder": b"", "d/folder/1.jpg": b"1", "d/empty.jpg": b"", "d/deep": b"", "d/deep/er": b"", "d/deep/er/2": b""}
    )
    listed = place(bucket, "d").listed()
    assert [each.name for each in listed.objects] == ["a/1.jpg", "deep/er/2", "empty.jpg", "folder/1.jpg"]
    assert (listed.others, listed.folders, listed.loops) == (Counter({"hidden .jpg": 1}), Counter({".git": 1, "@eaDir": 1}), 0)


def test_an_object_comes_before_a_folder_of_its_name_unless_it_is_empty() -> None:
    assert names(MemoryBucket({"d/x": b"1", "d/x/y": b"2"}), "d/x") == ["x"]
    assert names(MemoryBucket({"d/x": b"1", "d/x/y": b"2"}), "d/x/") == ["y"]
    assert names(MemoryBucket({"d/x": b"", "d/x/y": b"2"}), "d/x") == ["y"]
    assert names(MemoryBucket({"d/x": b"", "d/x.a": b"2"}), "d/x") == ["x"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("face", "s3://bucket/ holds faces.txt, faces/, other/, top.txt"),
        ("faces/c/d", "s3://bucket/faces/ holds a/, b/"),
        ("faces/a/3.jpg", "s3://bucket/faces/a/ holds 1.jpg, 2.jpg"),
        ("faces/a/1.jpg/", "s3://bucket/faces/a/ holds 1.jpg, 2.jpg"),
    ],
)
def test_nothing_there_says_what_is(path: str, why: str) -> None:
    with pytest.raises(JobError) as caught:
        place(MemoryBucket(FACES), path).listed()
    assert caught.value.line() == f"GTJ0113 the data does not exist (s3://bucket/{path.rstrip('/')}): {why}. mend data.source"
    assert caught.value.exit_code == 7


def test_empty_buckets_and_patterns_that_fit_nothing() -> None:
    with pytest.raises(JobError, match=r"GTJ0113 the data does not exist \(s3://bucket\): s3://bucket/ is empty"):
        place(MemoryBucket({})).listed()
    with pytest.raises(JobError, match=r"GTJ0113 nothing fits the pattern \(s3://bucket/faces/\*.tar\): s3://bucket/faces/ holds a/, b/"):
        place(MemoryBucket(FACES), "faces/*.tar").listed()
    with pytest.raises(JobError, match=r"GTJ0113 1 of what the pattern names is missing \(.*\): 3.jpg. put it there"):
        place(MemoryBucket(FACES), "faces/a/{1..3}.jpg").listed()


def answers(kind: str, why: str, verb: str = "") -> MemoryBucket:
    def fault(asked: str, path: str) -> None:
        if verb in ("", asked):
            raise Said(Trouble(kind, why))  # type: ignore[arg-type]

    return MemoryBucket(FACES, fault=fault)


@pytest.mark.parametrize(
    ("kind", "line", "status"),
    [
        (
            "denied",
            "GTJ0112 the data cannot be read (s3://bucket/faces): s3:ListBucket was refused to arn:aws:iam::1:role/trainer: said. "
            "grant that right",
            7,
        ),
        (
            "credentials",
            "GTJ0112 the data cannot be read (s3://bucket/faces): s3:ListBucket was refused to arn:aws:iam::1:role/trainer: said. "
            "give the job credentials, see docs/how-to/object-stores.md",
            7,
        ),
        (
            "failed",
            "GTJ0112 the data cannot be read (s3://bucket/faces): s3:ListBucket was refused: said. "
            "check the bucket's name, region and endpoint",
            7,
        ),
        (
            "no bucket",
            "GTJ0113 the data's bucket does not exist (s3://bucket/faces): s3:ListBucket was refused: said. "
            "mend data.source, or make the bucket; an endpoint of another store is set in the environment",
            7,
        ),
        (
            "busy",
            "GTJ0219 the data does not answer (s3://bucket/faces): s3:ListBucket failed 9 times in 16 s, the last time with: said. "
            "see that the bucket can be reached from here, and that its endpoint is the right one",
            5,
        ),
    ],
)
def test_what_a_listing_meets(kind: str, line: str, status: int) -> None:
    with pytest.raises(JobError) as caught:
        place(answers(kind, "said"), "faces").listed()
    assert (caught.value.line(), caught.value.exit_code) == (line, status)


def test_reading_names_the_object_and_the_right_that_is_missing() -> None:
    opened = place(answers("denied", "AccessDenied", "get"), "faces")
    (first, *_) = opened.listed().objects
    with pytest.raises(JobError) as caught:
        opened.read(first, 0, 1)
    assert caught.value.line() == (
        "GTJ0112 the data cannot be read (s3://bucket/faces/a/1.jpg): s3:GetObject was refused to arn:aws:iam::1:role/trainer: "
        "AccessDenied. grant that right"
    )


def test_an_sdk_that_cannot_even_ask() -> None:
    def fault(verb: str, path: str) -> None:
        raise ValueError("Invalid endpoint: example")

    with pytest.raises(
        JobError, match=r"GTJ0107 the bucket cannot be asked \(s3://bucket/faces\): Invalid endpoint: example. check the end"
    ):
        place(MemoryBucket({}, fault=fault), "faces").listed()


def test_objects_that_are_replaced_or_deleted_under_a_run_are_told(tmp_path: Path) -> None:
    bucket = MemoryBucket(FACES)
    opened = place(bucket, "faces")
    first, second, _ = opened.listed().objects
    bucket.replace("faces/a/1.jpg", b"another")
    with pytest.raises(JobError) as caught:
        opened.fetch(first, tmp_path / "a")
    assert caught.value.line() == (
        "GTJ0113 an object of the data is not what was listed (s3://bucket/faces/a/1.jpg): it was replaced while it was read. "
        "leave the data as it is while a run reads it, and start the run again"
    )
    assert opened.listed().objects[0].tag != first.tag
    del bucket.objects["faces/a/2.jpg"]
    with pytest.raises(JobError, match=r"GTJ0113 .*s3://bucket/faces/a/2.jpg\): it is missing"):
        opened.read(second, 0, 1)


def test_a_bucket_that_is_away_for_a_minute_is_waited_for(tmp_path: Path) -> None:
    clock = Clock()

    def fault(verb: str, path: str) -> None:
        if verb == "get" and clock.time < 60:
            raise ConnectionError("connection refused")

    opened = place(MemoryBucket(FACES, fault=fault), "faces", seconds=AMID, clock=clock)
    (first, *_) = opened.listed().objects
    opened.fetch(first, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == FACES["faces/a/1.jpg"]
    assert 60 <= clock.time < 70
    clock.time = 0.0
    with pytest.raises(
        JobError, match=r"GTJ0219 the data does not answer .*/1.jpg\): s3:GetObject failed \d+ times in 1\d s.*connection refused"
    ):
        place(MemoryBucket(FACES, fault=fault), "faces", clock=clock).read(first, 0, 1)


def test_large_objects_come_in_ranges_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 10)
    data = bytes(range(256)) * 2
    bucket = MemoryBucket({"x": data})
    opened = place(bucket, "x")
    (found,) = opened.listed().objects
    opened.fetch(found, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data
    assert bucket.asked["get"] == 52
    assert opened.read(found, 5, 505) == data[5:505]
    assert opened.read(found, 500, 9999) == data[500:]
    assert opened.read(found, 512, 600) == b""
    with pytest.raises(FileExistsError):
        opened.fetch(found, tmp_path / "x")


def test_a_byte_that_flips_on_the_way_is_fetched_again_where_the_store_keeps_a_digest(tmp_path: Path) -> None:
    class Flipping(MemoryBucket):
        left = 2

        def get(self, path: str, start: int, length: int, version: str):  # type: ignore[no-untyped-def]
            found = super().get(path, start, length, version)
            self.left -= 1
            return found if self.left < 0 else type(found)(b"?" + found.data[1:], found.total, found.version)

    bucket = Flipping({"x": b"1234"}, md5=True)
    opened = place(bucket, "x")
    (found,) = opened.listed().objects
    opened.fetch(found, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"1234"
    bucket.left = 99
    with pytest.raises(JobError, match=r"GTJ0113 x is damaged \(s3://bucket/x\): it arrived 3 times with another MD5"):
        opened.fetch(found, tmp_path / "y")


def test_a_listing_goes_on_where_an_answer_was_lost() -> None:
    seen: list[str] = []

    class Paged(MemoryBucket):
        paged = 10

        def list(self, prefix: str, token: str = ""):  # type: ignore[no-untyped-def]
            seen.append(token)
            if len(seen) % 2:
                raise ConnectionError("reset")
            return super().list(prefix, token)

    bucket = Paged({f"d/{number:03d}": b"1" for number in range(100)})
    assert len(place(bucket, "d/").listed().objects) == 100
    assert len(seen) == 20
    assert sorted({*seen}) == ["", *(f"d/{number:03d}" for number in range(9, 99, 10))]
