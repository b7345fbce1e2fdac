"""data.onBadSample: skip, of every form: what cannot be read is left out, counted and named, and nothing else changes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.real import made
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import bad, open_source, preflight
from trainjobs.data.source import Source
from trainjobs.data.text import TextSource
from trainjobs.noise import Noise

Make = Callable[..., Spec]
COUNT, CONTEXT = 60, 16
LANGUAGE = {"network": {"contextLength": CONTEXT}}
CUSTOM = {"objective": "tests.data.real.recorded:build"}


def record(number: int) -> str:
    return json.dumps({"text": f"record {number} has some words in it. " * 3})


def row(number: int) -> str:
    return f'{number},"record {number} has some words in it. record {number} again, with a comma."'


def jsonl(bad: Mapping[int, bytes]) -> dict[str, bytes]:
    return {"a.jsonl": b"".join(bad.get(number, record(number).encode()) + b"\n" for number in range(COUNT))}


def csv(bad: Mapping[int, bytes]) -> dict[str, bytes]:
    return {"a.csv": b"id,text\n" + b"".join(bad.get(number, row(number).encode()) + b"\n" for number in range(COUNT))}


# By name: with something bad in lines 4 (the first is 1) and 31; the same without; the line that is named; words of its reason.
TEXTS: Mapping[str, tuple[Callable[[Mapping[int, bytes]], dict[str, bytes]], dict[int, bytes], tuple[int, int], tuple[str, str]]] = {
    "broken lines": (jsonl, {3: b"{oops", 30: b"[1, 2]"}, (4, 31), ("the line is not JSON", "the line is not a JSON object")),
    "no UTF-8": (jsonl, {3: b'{"text": "b\xe4d"}', 30: b"\xff\xfe"}, (4, 31), ("the line is not JSON", "the line is not JSON")),
    "no text": (jsonl, {3: b'{"words": 1}', 30: b'{"text": 7}'}, (4, 31), ("the record has no text", "the record has no text")),
    "fields": (csv, {3: b"3,one,two,three", 30: b"30"}, (5, 32), ("the row is not CSV", "the row is not CSV")),
    "no UTF-8 in a row": (csv, {3: b"3,b\xe4d", 30: b'30,"a"b"'}, (5, 32), ("the row is not CSV", "the row is not CSV")),
}


def folder(path: Path, files: Mapping[str, bytes]) -> str:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return f"file://{path}"


def named(cache: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (cache / bad.NAME).read_text().splitlines()]


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_what_it_is_without_them(name: str, job: Make, tmp_path: Path) -> None:
    write, wrong, lines, reasons = TEXTS[name]
    source, without = folder(tmp_path / "data", write(wrong)), folder(tmp_path / "good", write(dict.fromkeys(wrong, b"")))
    with pytest.raises(JobError, match="GTJ0113"):
        open_source(job("language", source, LANGUAGE), tmp_path / "cache")
    spec = job("language", source, LANGUAGE, onBadSample="skip", holdout=0.1)
    assert f"{COUNT - 2} documents" in preflight(spec) or "samples" in preflight(spec)
    found = open_source(spec, tmp_path / "cache")
    good = open_source(job("language", without, LANGUAGE, holdout=0.1), tmp_path / "good-cache")
    assert isinstance(found, TextSource)
    assert isinstance(good, TextSource)
    assert torch.equal(found.sequences, good.sequences)
    assert torch.equal(found.held, good.held)
    told = named(tmp_path / "cache")
    assert [one["where"].rpartition(":")[2] for one in told] == [str(line) for line in lines]
    for one, reason in zip(told, reasons, strict=True):
        assert one["why"].startswith(reason)
    with pytest.raises(JobError, match="GTJ0113"):  # what was left out is not left out for who does not ask for it
        open_source(job("language", source, LANGUAGE), tmp_path / "cache")


def test_too_many_end_it_and_the_first_hundred_are_named(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [record(number) if number % 8 else "{oops" for number in range(2000)]
    spec = job("language", folder(tmp_path / "data", {"a.jsonl": "\n".join(lines).encode()}), LANGUAGE, onBadSample="skip")
    with pytest.raises(JobError) as caught:
        open_source(spec, tmp_path / "cache")
    assert (caught.value.code, caught.value.exit_code, caught.value.what) == ("GTJ0113", 7, "too many samples cannot be read")
    assert "250 of 2,000" in caught.value.why
    assert len(named(tmp_path / "cache")) == bad.NAMED
    with pytest.raises(JobError, match="too many samples cannot be read"):
        preflight(spec)


def test_conversations_too(job: Make, tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"{number}?", "completion": f"{number}!"}) for number in range(40)]
    rows[5], rows[6] = "{oops", json.dumps({"prompt": "and?", "completion": None})
    source = folder(tmp_path / "data", {"a.jsonl": "\n".join(rows).encode()})
    found = open_source(job("custom", source, CUSTOM, onBadSample="skip", holdout=0), tmp_path / "cache")
    assert found.info.length == 38
    assert [one["where"].rpartition(":")[2] for one in named(tmp_path / "cache")] == ["6", "7"]


def tar(wrong: Mapping[int, bytes]) -> dict[str, bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for number in range(COUNT):
            for suffix, data in (("png", made.picture(number)), ("cls", wrong.get(number, b"%d" % (number % 3)))):
                info = tarfile.TarInfo(f"{number:04d}.{suffix}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return {"a.tar": out.getvalue()}


def batches(source: Source) -> torch.Tensor:
    labels = []
    for start in range(0, source.info.length, 20):
        positions = torch.arange(start, min(start + 20, source.info.length))
        labels.append(source.batch(positions, 0, Noise.of(0, 0, "train", positions))["label"])
    return torch.cat(labels)


@pytest.mark.parametrize("wrong", [b"none of them", b"\xff", b""])
def test_labels_that_cannot_be_read(wrong: bytes, job: Make, tmp_path: Path) -> None:
    source = folder(tmp_path / "data", tar({7: wrong, 40: wrong}))
    data: dict[str, Any] = {"columns": {"label": "cls"}, "images": {"size": 8}, "holdout": 0}
    with pytest.raises(JobError, match="GTJ0113"):
        open_source(job("custom", source, CUSTOM, **data), tmp_path / "first")
    spec = job("custom", source, CUSTOM, onBadSample="skip", **data)
    preflight(spec)
    found = open_source(spec, tmp_path / "cache")
    assert found.info.classes == ("0", "1", "2")
    assert len(batches(found)) == COUNT
    assert sorted(one["where"].rpartition("/")[2] for one in named(tmp_path / "cache")) == ["0007.cls", "0040.cls"]


def test_pictures_of_a_folder(job: Make, tmp_path: Path) -> None:
    files = {**made.folders(30), "red/00031.png": b"<html>404</html>"}
    data: dict[str, Any] = {"labels": "folder", "images": {"size": 8}, "holdout": 0}
    source = folder(tmp_path / "data", files)
    with pytest.raises(JobError, match="GTJ0113"):
        preflight(job("custom", source, CUSTOM, **data))
    spec = job("custom", source, CUSTOM, onBadSample="skip", **data)
    assert "1 of 31 looked at cannot be read, the first of them " in preflight(spec)
    found = open_source(spec, tmp_path / "cache")
    assert len(batches(found)) == 31, "its neighbour is seen in its place"
    assert [Path(one["where"]).name for one in named(tmp_path / "cache")] == ["00031.png"]


def test_nothing_but_what_is_bad_is_told_before_anything_starts(job: Make, tmp_path: Path) -> None:
    source = folder(tmp_path / "data", {f"{number}.jpg": b"<html>404</html>" for number in range(3)})
    with pytest.raises(JobError, match="is not a readable image"):
        preflight(job("vae", source, onBadSample="skip"))
