"""Patterns: against Python's own glob and against bash's braces."""

from __future__ import annotations

import glob
import subprocess
from pathlib import Path

import pytest

from trainjobs.data.places.glob import parse

NAMES = ("a.jpg", "b.JPG", "c.tar", "ab/a.jpg", "ab/cd/a.jpg", "ab/cd/b.txt", "b/x-1.tar", "b/x-2.tar", "b/x-10.tar", "q[1].tar", "z^.t")


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "*.jpg",
        "**/*.jpg",
        "**",
        "ab/**",
        "ab/**/*.txt",
        "*/*.jpg",
        "b/x-[12].tar",
        "b/x-[!1].tar",
        "b/x-[0-9]*.tar",
        "*/c*/*",
        "?.no*",
        "**/c*/**",
        "z[\\^].t",
        "*.[jJ][pP][gG]",
        "ab/*",
        "no/*",
    ],
)
def test_it_fits_what_a_shell_finds(pattern: str, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = glob.glob(pattern.replace("?", "[?]"), root_dir=tmp_path, recursive=True)
    parsed = parse(pattern)
    assert parsed is not None
    below = [name.removeprefix(parsed.base) for name in NAMES if name.startswith(parsed.base)]
    chosen = parsed.choose(below)[0]
    assert sorted(parsed.base + name for name in chosen) == sorted(name for name in found if (tmp_path / name).is_file())
    assert all(name.startswith(parsed.prefix) for name in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        "x-{000..127}.tar",
        "{3..1}",
        "{a,b}{1..2}",
        "{a,b{1,2}c}",
        "{-2..2}",
        "{01..3}",
        "{0..9..3}",
        "{5..1..2}",
        "a{b}c*",
        "{a,}x",
        "{8..11}",
        "{,}q*",
        "{a..b*",
        "x}{1..2}",
        "{0..-0}*",
        "{1..2}{a,b*}",
    ],
)
def test_braces_are_written_out_as_bash_does(pattern: str) -> None:
    told = subprocess.run(["bash", "-f", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True).stdout.split("\n")
    parsed = parse(pattern)
    assert parsed is not None
    assert [parsed.base + each for each in parsed.patterns] == list(dict.fromkeys(told[:-1]))


@pytest.mark.parametrize("path", ["plain", "a/b.tar", "a{b}c", "a{b", "a[b", "x]", "a[]b", "a{}b", ""])
def test_what_looks_like_a_pattern_and_is_none(path: str) -> None:
    assert parse(path) is None


def test_whatever_braces_name_must_be_there() -> None:
    found = parse("train/x-{0..3}.tar")
    assert found is not None
    assert (found.base, found.prefix) == ("train/", "train/x-")
    assert found.choose(["x-0.tar", "x-2.tar", "x-5.tar"]) == (["x-0.tar", "x-2.tar"], ["x-1.tar", "x-3.tar"])
    both = parse("{a,b}/*.tar")
    assert both is not None
    assert both.choose(["a/1.tar", "c/1.tar"]) == (["a/1.tar"], ["b/*.tar"])
    assert both.choose(["c/1.tar"]) == ([], ["a/*.tar", "b/*.tar"])


def test_a_last_part_without_a_pattern_may_be_a_folder() -> None:
    for pattern, fits in (("{cats,dogs}", {"cats/1.jpg", "cats/x/2.jpg", "dogs"}), ("*/x", {"cats/x/2.jpg"}), ("c*", set())):
        found = parse(pattern)
        assert found is not None
        assert set(found.choose(["cats/1.jpg", "cats/x/2.jpg", "dogs", "owls/1.jpg"])[0]) == fits


@pytest.mark.parametrize("pattern", ["{0..99999999}", "{0..999}{0..999}", "{0..999999999999999999999}"])
def test_braces_that_name_too_much_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="more than 100,000 objects"):
        parse(pattern)
