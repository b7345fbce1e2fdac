"""What lies in a folder: links, pipes, names of any bytes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import open_source, preflight, tree

Make = Callable[..., Spec]


def faces(path: Path, count: int = 2) -> Path:
    path.mkdir(parents=True)
    for number in range(count):
        Image.linear_gradient("L").save(path / f"{number}.png")
    return path


def test_two_links_to_one_folder_are_two_classes(job: Make, tmp_path: Path) -> None:
    real = faces(tmp_path / "data" / ".real")
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).symlink_to(real)
    assert tree.walk(tmp_path / "data").names == ["cats/0.png", "cats/1.png", "dogs/0.png", "dogs/1.png"]
    assert preflight(job("gan", f"file://{tmp_path}/data")) == "4 images, 32x32 colour; folder .real left out"


@pytest.mark.parametrize("source", ["data", "data/*.png", "data/*/*.png", "link"])
@pytest.mark.parametrize("kind", ["file", "folder", "nowhere"])
def test_a_link_that_leads_out_of_the_data_is_told(source: str, kind: str, job: Make, tmp_path: Path) -> None:
    data, elsewhere = faces(tmp_path / "data"), faces(tmp_path / "elsewhere")
    (data / "inside").symlink_to("sub")
    faces(data / "sub")
    (tmp_path / "link").symlink_to(data)
    spec, cache = job("gan", f"file://{tmp_path}/{source}"), tmp_path / "cache"
    assert open_source(spec, cache).info.length > 0, "links inside, and a folder that is one itself, are followed"
    target = {"file": elsewhere / "1.png", "folder": elsewhere, "nowhere": tmp_path / "gone.png"}[kind]
    name = "sub/2.png" if source == "data/*/*.png" and kind != "folder" else "2.png" if kind != "folder" else "out"
    (data / name).symlink_to(target)
    if source == "data/*.png" and kind == "folder":
        assert preflight(spec).startswith("2 images"), "what the pattern does not name is nobody's business"
        return
    with pytest.raises(JobError) as caught:
        preflight(spec)
    assert (caught.value.code, caught.value.exit_code, caught.value.what) == ("GTJ0113", 7, "a link leads out of the data")
    assert caught.value.where in {f"{tmp_path}/{base}/{name}" for base in ("data", "link")} | {f"{data}/inside/2.png"}
    assert f"it leads to {target}, and the data is {tmp_path}/" in caught.value.why


def test_loops_end_and_are_said(job: Make, tmp_path: Path) -> None:
    data = faces(tmp_path / "data")
    (data / "again").symlink_to(data)
    (data / "a").mkdir()
    (data / "a" / "up").symlink_to("..")
    assert preflight(job("gan", f"file://{data}")) == "2 images, 32x32 colour; 2 links back to a folder above left out"


def test_links_without_an_end_in_sight_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MANY", 20)
    for one in "abcde":
        (tmp_path / one).mkdir()
        for other in "abcde":
            (tmp_path / one / other).symlink_to(tmp_path / other)
    with pytest.raises(JobError, match="GTJ0113 links multiply the folder"):
        tree.walk(tmp_path)


def test_what_is_no_file_is_left_out_and_said(job: Make, tmp_path: Path) -> None:
    data = faces(tmp_path / "data")
    os.mkfifo(data / "a.png")
    (data / "null.png").symlink_to("/dev/null")
    here = os.getcwd()
    os.chdir(data)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("s.png")
    finally:
        os.chdir(here)
    assert preflight(job("gan", f"file://{data}")) == "2 images, 32x32 colour; 1 pipe, 1 device, 1 socket left out"
    assert open_source(job("gan", f"file://{data}"), tmp_path / "cache").info.length == 1


def test_a_pipe_among_texts_hangs_nothing(job: Make, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc" * 1000)
    os.mkfifo(tmp_path / "b.txt")
    os.mkfifo(tmp_path / "c.jsonl")
    assert preflight(job("language", f"file://{tmp_path}")) == "3,000 bytes of text: 1 file, 1 document; 2 pipe left out"


@pytest.mark.parametrize("family", ["gan", "language", "custom"])
def test_a_source_that_is_a_pipe_is_refused(family: str, job: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    options = {"objective": "package.module:build"} if family == "custom" else {}
    with pytest.raises(JobError, match=r"GTJ0113 .*it is a pipe"):
        preflight(job(family, f"file://{tmp_path}/a.txt", options))


def test_names_that_are_not_utf8_are_read_and_told(job: Make, tmp_path: Path) -> None:
    data = faces(tmp_path / "data", count=1)
    name = os.fsdecode(b"caf\xe9.png")
    (data / "0.png").rename(data / name)
    (data / os.fsdecode(b"a.\xff")).write_bytes(b"x")
    spec = job("gan", f"file://{data}", holdout=0)
    assert preflight(spec) == r"1 image, 32x32 colour; 1 .\xff left out"
    assert open_source(spec, tmp_path / "cache").info.length == 1
    (data / name).write_bytes(b"no image")
    with pytest.raises(JobError) as raised:
        preflight(spec)
    raised.value.line().encode()
    assert rf"caf\xe9.png is not a readable image ({data}/caf\xe9.png)" in raised.value.line()
