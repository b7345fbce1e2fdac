"""`preflight` says what the data is, or what is wrong with it, before anything heavy starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import first_look, open_source, preflight

Make = Callable[..., Spec]


def picture(path: Path, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), "red").save(path)
    return path


def refusal(spec: Spec, cache: Path, *, code: str = "GTJ0113") -> str:
    """The message; opening the data must give the same one."""
    with pytest.raises(JobError) as early:
        preflight(spec)
    with pytest.raises(JobError) as late:
        open_source(spec, cache)
    assert early.value.code == late.value.code == code
    assert early.value.line() == late.value.line()
    return early.value.line()


@pytest.mark.parametrize(
    ("family", "source", "data", "found"),
    [
        ("vae", "builtin:digits", {"images": {"size": 8, "channels": 1}}, "1797 images, 8x8 grey"),
        ("diffusion", "builtin:shapes", {}, "8192 images, 32x32 colour"),
        ("gan", "builtin:ring", {}, "65536 points around 8 modes"),
    ],
)
def test_it_says_what_was_found(family: str, source: str, data: dict[str, Any], found: str, job: Make) -> None:
    assert preflight(job(family, source, **data)) == found


def test_it_says_what_a_folder_holds(job: Make, tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("abc" * 1000)
    (tmp_path / "text" / "b.jsonl").write_text('{"text": "x"}\n' * 5)
    assert preflight(job("gan", f"file://{tmp_path}/images")) == "3 images, 32x32 colour"
    assert preflight(job("language", f"file://{tmp_path}/text")) == "3,070 bytes of text: 2 files, 6 documents"


def test_a_custom_job_reads_what_is_there(job: Make, tmp_path: Path) -> None:
    options = {"objective": "package.module:build"}
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("abc" * 1000)
    for source, kind in (("images", "image"), ("text", "text")):
        spec = job("custom", f"file://{tmp_path}/{source}", options, holdout=0)
        assert preflight(spec)
        assert open_source(spec, tmp_path / "cache").info.kind == kind
    assert open_source(job("custom", "builtin:stdlib-text", options), tmp_path / "cache").info.vocabulary == 257


def test_a_relative_path_starts_in_the_current_directory(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "data" / "a.png")
    monkeypatch.chdir(tmp_path)
    for source in ("file://./data", "file://data", f"file://{tmp_path}/data"):
        assert preflight(job("gan", source, holdout=0)) == "1 image, 32x32 colour"


def test_an_unknown_builtin_lists_the_known(job: Make, tmp_path: Path) -> None:
    assert "builtin:digits, builtin:shapes, builtin:ring" in refusal(job("gan", "builtin:mnist"), tmp_path, code="GTJ0107")


@pytest.mark.parametrize(
    ("family", "source"), [("language", "builtin:digits"), ("language", "builtin:ring"), ("gan", "builtin:stdlib-text")]
)
def test_a_family_needs_its_own_kind_of_data(family: str, source: str, job: Make, tmp_path: Path) -> None:
    assert f"a {family} job cannot learn from {source}" in refusal(job(family, source), tmp_path, code="GTJ0108")


def test_a_missing_folder_names_what_is_there(job: Make, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    for family in ("gan", "language"):
        message = refusal(job(family, f"file://{tmp_path}/facse/train"), tmp_path)
        assert message.startswith(f"GTJ0113 the data does not exist ({tmp_path}/facse/train): {tmp_path} holds faces")


def test_an_empty_folder(job: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for family in ("gan", "language"):
        assert "the folder is empty" in refusal(job(family, f"file://{tmp_path}/data"), tmp_path)
    (tmp_path / "data" / ".DS_Store").write_bytes(b"")
    for family in ("gan", "language"):
        assert "it is empty" in refusal(job(family, f"file://{tmp_path}/data"), tmp_path)


def test_a_folder_without_images_names_what_it_holds(job: Make, tmp_path: Path) -> None:
    data = tmp_path / "data" / "deep"
    data.mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.csv", "README"):
        (data / name).write_text("x")
    message = refusal(job("gan", f"file://{tmp_path}/data"), tmp_path)
    assert "holds no images" in message
    assert "found 2 × .txt, 1 × no suffix, 1 × .csv" in message
    assert ".jpg" in message


def test_a_folder_without_text_names_what_it_holds(job: Make, tmp_path: Path) -> None:
    picture(tmp_path / "data" / "a.png")
    assert "holds no text (" in (message := refusal(job("language", f"file://{tmp_path}/data"), tmp_path))
    assert "found 1 × .png" in message


def test_a_single_file(job: Make, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    assert "no training samples are left" in refusal(job("gan", f"file://{path}"), tmp_path)
    assert preflight(job("gan", f"file://{path}", holdout=0)) == "1 image, 32x32 colour"
    (tmp_path / "a.log").write_text("x" * 1000)
    assert "found 1 × .log" in refusal(job("language", f"file://{tmp_path}/a.log"), tmp_path)


def test_a_file_that_is_no_image_is_named(job: Make, tmp_path: Path) -> None:
    picture(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "b.png").write_text("<html>404</html>")
    message = refusal(job("gan", f"file://{tmp_path}/data"), tmp_path / "cache")
    assert f"b.png is not a readable image ({tmp_path}/data/b.png): no image format that Pillow knows" in message


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_a_truncated_image_is_named(suffix: str, job: Make, tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "data" / f"{number}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert f"2.{suffix} is not a readable image" in refusal(job("gan", f"file://{tmp_path}/data"), tmp_path / "cache")


def test_large_folders_are_checked_by_samples(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_look, "CHECKED", 3)
    for number in range(10):
        picture(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_text("broken, and not among 0, 4 and 8")
    spec = job("gan", f"file://{tmp_path}")
    assert preflight(spec) == "10 images, 32x32 colour"
    with pytest.raises(JobError, match=r"GTJ0113 1\.png is not a readable image"):
        open_source(spec, tmp_path / "cache")


def test_nothing_left_to_train_on(job: Make, tmp_path: Path) -> None:
    picture(tmp_path / "data" / "a.png")
    message = refusal(job("gan", f"file://{tmp_path}/data"), tmp_path)
    assert "no training samples are left" in message
    assert "1 image found, and held out by data.holdout 0.05" in message
    assert preflight(job("gan", f"file://{tmp_path}/data", holdout=0))


@pytest.mark.parametrize(
    ("holdout", "characters", "needed"),
    [(0, 127, None), (0, 128, "129"), (0.05, 255, None), (0.05, 256, "257")],
    ids=["one", "enough for one", "two", "enough for two"],
)
def test_text_shorter_than_a_sequence_says_how_much_is_missing(
    holdout: float, characters: int, needed: str | None, job: Make, tmp_path: Path
) -> None:
    """128 tokens and the one they end on; a held-out sequence shares one token with its neighbour."""
    path = tmp_path / "a.txt"
    path.write_text("x" * characters)  # and the end-of-text token
    spec = job("language", f"file://{path}", holdout=holdout)
    if needed:
        assert preflight(spec)
        assert open_source(spec, tmp_path / "cache").info.length == 1
    else:
        assert f"{characters + 1} tokens found, {characters + 2} needed" in refusal(spec, tmp_path / "cache")


def test_short_text_is_counted_in_the_tokens_of_its_own_tokenizer(job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("the cat sat on the mat\n" * 12)  # 276 bytes: enough for bytes, far too little for pairs
    assert preflight(job("language", f"file://{path}"))
    assert "needed for two sequences of 128" in refusal(
        job("language", f"file://{path}", {"tokenizer": {"type": "bpe"}}), tmp_path / "cache"
    )


def test_empty_files_are_no_text(job: Make, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    assert "the data is empty" in refusal(job("language", f"file://{tmp_path}/a.txt"), tmp_path / "cache")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "b"', "the line is not JSON ({path}:3): Expecting ',' delimiter"),
        ('["b"]', 'the line is not a JSON object ({path}:3): it is a list. write {{"text": "..."}}'),
        ('{"txt": "b", "id": 1}', "the record has no text in field text ({path}:3): there is none. set data.columns.text to"),
        ('{"text": 5}', 'the record has no text in field text ({path}:3): it is 5. write a string in quotes, such as {{"text": "5"}}'),
        ('{"text": ["b"]}', "the record has no text in field text ({path}:3): it is a list. write a string in quotes"),
        ("{}", "the record has no text in field text ({path}:3): there is none"),
        ("[" * 100_000, "the line is not JSON ({path}:3)"),
    ],
)
def test_a_bad_record_is_named_by_file_and_line(line: str, message: str, job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{line}\n')
    assert message.format(path=path) in refusal(job("language", f"file://{path}"), tmp_path / "cache")


def test_text_that_is_not_utf8_is_named(job: Make, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("naïve".encode("latin-1"))
    message = refusal(job("language", f"file://{tmp_path}"), tmp_path / "cache")
    assert f"a.txt is not UTF-8 text ({tmp_path}/a.txt:1): byte 2 of the file, 0xef, is none of UTF-8 there" in message


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_text_that_is_not_utf8_is_named_by_line_and_byte_of_the_file(name: str, job: Make, tmp_path: Path) -> None:
    """Far behind the buffers of decoders, and behind a mark of byte order, which counts."""
    start = b"\xef\xbb\xbf" + b'{"text": "abcdefgh"}\n' * 5000
    (tmp_path / name).write_bytes(start + b'{"text": "na\xefve"}\n')
    message = refusal(job("language", f"file://{tmp_path}"), tmp_path / "cache")
    assert f"({tmp_path}/{name}:5001): byte {len(start) + 12} of the file, 0xef, is none of UTF-8" in message


def test_text_in_utf16_is_told_as_that(job: Make, tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("text", encoding="utf-16")
    message = refusal(job("language", f"file://{tmp_path}"), tmp_path / "cache")
    assert "it begins as UTF-16 does. convert it: iconv -f utf-16 -t utf-8 'a b.txt'" in message


def test_json_errors_count_in_the_line_of_the_file(job: Make, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": b}\n')
    message = refusal(job("language", f"file://{tmp_path}"), tmp_path / "cache")
    assert f"({tmp_path}/a.jsonl:2): Expecting value at character 10 of the line" in message
    assert "line 1" not in message


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder in which root, too, is refused what its owner is."""
    with tempfile.TemporaryDirectory() as folder:
        user = os.geteuid()
        os.chmod(folder, 0o755)
        if user == 0:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_a_folder_that_may_not_be_read(job: Make, unprivileged: Path) -> None:
    picture(unprivileged / "data" / "a.png")
    (unprivileged / "data" / "sub").mkdir(mode=0o000)
    message = refusal(job("gan", f"file://{unprivileged}/data"), unprivileged / "cache")
    assert f"the data cannot be read ({unprivileged}/data/sub): Permission denied. give the user who trains permission" in message


def test_a_path_through_a_folder_that_may_not_be_entered(job: Make, unprivileged: Path) -> None:
    (unprivileged / "data").mkdir(mode=0o000)
    message = refusal(job("gan", f"file://{unprivileged}/data/train"), unprivileged / "cache")
    assert f"the data cannot be read ({unprivileged}/data/train): Permission denied" in message


@pytest.mark.parametrize(("family", "name"), [("gan", "a.png"), ("language", "a.txt"), ("language", "a.jsonl")])
def test_a_file_that_may_not_be_read(family: str, name: str, job: Make, unprivileged: Path) -> None:
    (unprivileged / name).write_bytes(b"x")
    (unprivileged / name).chmod(0o000)
    message = refusal(job(family, f"file://{unprivileged}", holdout=0), unprivileged / "cache")
    assert f"the data cannot be read ({unprivileged}/{name}): Permission denied" in message


def test_a_link_to_nowhere_is_named(job: Make, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    assert f"the data cannot be read ({tmp_path}/a.png): No such file" in refusal(job("gan", f"file://{tmp_path}"), tmp_path / "cache")


@pytest.mark.slow
def test_it_imports_nothing_heavy() -> None:
    script = (
        "import sys; from trainjobs.api.job import Spec; from trainjobs.data import preflight\n"
        "for family, source in (('vae', 'digits'), ('gan', 'ring'), ('gan', 'shapes'), ('language', 'stdlib-text')):\n"
        "    preflight(Spec.model_validate({family: {}, 'data': {'source': 'builtin:' + source}, 'training': {'steps': 1}}))\n"
        "print(sorted({'torch', 'sklearn', 'ray', 'transformers', 'tokenizers', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
