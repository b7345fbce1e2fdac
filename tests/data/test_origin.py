"""What a run's data is, and what has changed of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainjobs.api.job import Spec
from trainjobs.data import origin_of
from trainjobs.data.origin import Origin, difference, refuse

Make = Callable[..., Spec]


def told(before: Origin, now: Origin) -> str | None:
    return difference(before.metadata(), now, before.listed)


def texts(folder: Path, **contents: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in contents.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_added_removed_and_changed_files_are_named(job: Make, tmp_path: Path) -> None:
    folder = texts(tmp_path / "data", a="one", b="two", c="three")
    spec = job("language", f"file://{folder}", {})
    before = origin_of(spec)
    assert told(before, origin_of(spec)) is None
    texts(folder, b="owt", d="four", e="five")  # b is as long as it was
    (folder / "c.txt").unlink()
    assert told(before, origin_of(spec)) == "2 added (d.txt, e.txt); 1 removed (c.txt); 1 changed (b.txt)"


def test_a_copy_is_the_same_data(job: Make, tmp_path: Path) -> None:
    """Times are not data, nor is where it lies."""
    first, second = (origin_of(job("language", f"file://{texts(tmp_path / name, a='one')}", {})) for name in ("here", "there"))
    assert told(first, second) is None


def test_pictures_are_known_by_name_size_and_contents(job: Make, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "x" / f"{number}.png")
    spec = job("vae", f"file://{tmp_path / 'x'}", {})
    before = origin_of(spec)
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "x" / "1.png")
    (tmp_path / "x" / "notes.pdf").write_bytes(b"no picture")
    assert told(before, origin_of(spec)) == "1 changed (1.png)"


def test_a_picture_that_is_as_large_as_before_is_another_one(job: Make, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    path = tmp_path / "x" / "1.png"
    Image.frombytes("L", (8, 8), bytes(range(64))).save(path, compress_level=0)
    spec, size = job("vae", f"file://{tmp_path / 'x'}", {}), path.stat().st_size
    before = origin_of(spec)
    Image.frombytes("L", (8, 8), bytes(range(64, 128))).save(path, compress_level=0)
    assert path.stat().st_size == size
    assert told(before, origin_of(spec)) == "1 changed (1.png)"


@pytest.mark.parametrize("limit", ["CHEAP", "LISTED"])
def test_beyond_the_limits_contents_are_not_looked_at(limit: str, job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = texts(tmp_path / "data", a="one", b="two")
    spec = job("language", f"file://{folder}", {})
    monkeypatch.setattr(f"trainjobs.data.origin.{limit}", 1)
    before = origin_of(spec)
    texts(folder, b="owt")
    assert told(before, origin_of(spec)) is None


def test_a_checkpoint_without_digests_of_contents_is_of_the_same_data(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pictures they were not always kept. What changed in size is found all the same."""
    folder = texts(tmp_path / "data", a="one", b="two")
    spec = job("language", f"file://{folder}", {})
    with monkeypatch.context() as without:
        without.setattr("trainjobs.data.origin.CHEAP", 1)
        before = origin_of(spec)
    assert told(before, origin_of(spec)) is None
    texts(folder, b="three")
    assert told(before, origin_of(spec)) == "1 changed (b.txt)"


def test_of_more_files_than_are_listed_the_numbers_are_told(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainjobs.data.origin.LISTED", 1)
    folder = texts(tmp_path / "data", a="one", b="two")
    spec = job("language", f"file://{folder}", {})
    before = origin_of(spec)
    texts(folder, c="three")
    assert told(before, origin_of(spec)) == "2 files of 6 bytes then, 3 of 11 bytes now"


def test_what_is_built_in_is_the_same_until_it_is_another(job: Make) -> None:
    digits, ring = origin_of(job("vae", "builtin:digits", {})), origin_of(job("gan", "builtin:ring", {}))
    assert told(digits, digits) is None
    assert told(digits, ring) == "builtin:digits then, builtin:ring now"


def test_the_refusal_says_what_where_why_and_how() -> None:
    line = refuse(40, "1 added (z.txt)").line()
    assert line.startswith("GTJ0216 the data has changed since the checkpoint of step 40 (data.source): 1 added (z.txt).")
    assert "checkpoints.allowDataChange: true" in line
