"""Folders of this machine as places."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from trainjobs.api.errors import JobError
from trainjobs.api.uris import file_uri
from trainjobs.data.places.open import open_place


def made(top: Path, *names: str) -> Path:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode())
    return top


def test_a_folder_lists_its_files_with_what_is_left_out(tmp_path: Path) -> None:
    made(tmp_path, "b.txt", "a/c.txt", ".d.txt", "@eaDir/e.txt", ".git/f.txt", "x/@eaDir/g.txt")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    place = open_place(file_uri(str(tmp_path)))
    listed = place.listed()
    assert [each.name for each in listed.objects] == ["a/c.txt", "b.txt"]
    assert (listed.others, listed.loops) == (Counter({"hidden .txt": 1, "pipe": 1}), 1)
    assert listed.folders == Counter({"@eaDir": 2, ".git": 1})
    first = listed.objects[0]
    assert (first.path, first.size) == (tmp_path / "a" / "c.txt", 7)
    assert place.read(first, 2, 5) == b"c.t"
    assert place.read(first, 5, 99) == b"xt"
    assert place.where(first) == str(tmp_path / "a" / "c.txt")
    place.fetch(first, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"a/c.txt"


def test_one_file(tmp_path: Path) -> None:
    listed = open_place(file_uri(str(made(tmp_path, "with space.txt") / "with space.txt"))).listed()
    assert [(each.name, each.size) for each in listed.objects] == [("with space.txt", 14)]


def test_a_pattern(tmp_path: Path) -> None:
    made(tmp_path, "x-00.tar", "x-01.tar", "x-02.tar", "y/x-00.tar", ".x-00.tar")
    assert [each.name for each in open_place(f"file://{tmp_path}/x-{{00..02}}.tar").listed().objects] == [
        "x-00.tar",
        "x-01.tar",
        "x-02.tar",
    ]
    assert [each.name for each in open_place(f"file://{tmp_path}/**/x-*0.tar").listed().objects] == ["x-00.tar", "y/x-00.tar"]
    with pytest.raises(JobError) as caught:
        open_place(f"file://{tmp_path}/x-{{00..04}}.tar").listed()
    assert caught.value.line() == (
        f"GTJ0113 2 of what the pattern names are missing (file://{tmp_path}/x-{{00..04}}.tar): x-03.tar, x-04.tar. "
        "put it there, or name what there is"
    )
    with pytest.raises(JobError) as caught:
        open_place(f"file://{tmp_path}/*.parquet").listed()
    assert caught.value.line() == (
        f"GTJ0113 nothing fits the pattern (file://{tmp_path}/*.parquet): {tmp_path} holds x-00.tar, x-01.tar, x-02.tar, y/. "
        "mend data.source"
    )
    assert caught.value.exit_code == 7
    with pytest.raises(JobError, match=r"GTJ0107 not a pattern that can be read .*its braces name more than 100,000 objects"):
        open_place(f"file://{tmp_path}/{{0..9999999}}").listed()
    with pytest.raises(JobError, match=rf"GTJ0113 the data does not exist .*{tmp_path} holds"):
        open_place(f"file://{tmp_path}/none/*.tar").listed()


def test_a_file_that_is_called_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    made(tmp_path, "x[12].tar", "x1.tar", "{a,b}", "a")
    assert [each.name for each in open_place(f"file://{tmp_path}/x[12].tar").listed().objects] == ["x[12].tar"]
    assert [each.name for each in open_place(f"file://{tmp_path}/{{a,b}}").listed().objects] == ["{a,b}"]
    (tmp_path / "x[12].tar").unlink()
    assert [each.name for each in open_place(f"file://{tmp_path}/x[12].tar").listed().objects] == ["x1.tar"]


def test_nothing_there(tmp_path: Path) -> None:
    made(tmp_path, "faces/1.jpg")
    with pytest.raises(JobError, match=rf"GTJ0113 the data does not exist \({tmp_path}/face\): {tmp_path} holds faces"):
        open_place(f"file://{tmp_path}/face").listed()
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match="GTJ0113 the folder is empty"):
        open_place(f"file://{tmp_path}/empty").listed()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(JobError, match=r"GTJ0113 pipe is no file .*it is a pipe"):
        open_place(f"file://{tmp_path}/pipe").listed()


def test_a_file_that_changes_under_a_run_is_told(tmp_path: Path) -> None:
    place = open_place(file_uri(str(made(tmp_path, "a.txt"))))
    (found,) = place.listed().objects
    (tmp_path / "a.txt").write_bytes(b"another")
    for read in (lambda: place.read(found, 0, 5), lambda: place.fetch(found, tmp_path / "b")):
        with pytest.raises(JobError, match=r"GTJ0113 a.txt was changed while it was read .*another one than when the run began"):
            read()
    (tmp_path / "a.txt").unlink()
    with pytest.raises(JobError, match=rf"GTJ0113 the data cannot be read \({re.escape(str(tmp_path))}/a.txt\): No such file"):
        place.read(found, 0, 5)
