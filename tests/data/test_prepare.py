"""Data that is prepared ahead: the same samples as from the data itself, the same bytes again, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.cli.preparing import threads
from trainjobs.data import open_source, preflight, prepare_text
from trainjobs.data import text as texts_module
from trainjobs.data.dataset import Reading
from trainjobs.data.prepare import Entry, Made, Task, prepare
from trainjobs.data.text import TextSource
from trainjobs.stores.file import FileStore

Job = Callable[..., Spec]
LANGUAGE = {"network": {"contextLength": 16}}
BPE = {**LANGUAGE, "tokenizer": {"type": "bpe", "vocabularySize": 300}}


def in_turn(one: Callable[[Task], Entry], tasks: Sequence[Task]) -> Iterable[tuple[Task, Entry]]:
    return ((task, one(task)) for task in tasks)


def made(spec: Spec, out: Path, cache: Path, work: Any = in_turn, size: int = 1 << 28) -> Made:
    return prepare(spec, FileStore(out), Reading(cache), size, work)


def documents(folder: Path, count: int = 60) -> Path:
    """Short and long ones: the longest is divided into pieces, of which some are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        length = 40_000 if number % 10 == 3 else 150
        (folder / f"{number:03d}.txt").write_text(f"{number} über {number * 7919} " * (length // 15), encoding="utf-8")
    return folder


def lines(folder: Path, parts: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        rows = [json.dumps({"text": f"part {part}, line {row}: {'word ' * (row % 9)}"}) for row in range(100)]
        (folder / f"part-{part}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def pictures(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(24):
        kind = folder / ("cat" if number % 2 else "dog")
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 30 + number, 3), dtype=np.uint8)).save(kind / f"{number:02d}.jpg")
    return folder


def sequences(spec: Spec, cache: Path) -> tuple[torch.Tensor, torch.Tensor]:
    source = open_source(spec, cache)
    assert isinstance(source, TextSource)
    return source.sequences.clone(), source.held.clone()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("options", [LANGUAGE, BPE], ids=["byte", "bpe"])
@pytest.mark.parametrize("holdout", [0.05, 0.0])
@pytest.mark.parametrize("make", [documents, lines])
def test_prepared_text_gives_the_sequences_of_the_text(
    job: Job, tmp_path: Path, make: Callable[[Path], Path], options: dict[str, Any], holdout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = job("language", f"file://{make(tmp_path / 'raw')}", options, holdout=holdout)
    expected = sequences(raw, tmp_path / "cache")
    done = made(raw, tmp_path / "out", tmp_path / "scratch", size=3000)
    assert len(done.prepared.shards) > 3
    assert done.tokens == done.prepared.total("tokens") > 1000
    ready = job("language", f"file://{tmp_path / 'out'}", options, holdout=holdout)

    def encodes(*_: object) -> None:
        raise AssertionError("prepared data is encoded")

    monkeypatch.setattr(texts_module, "encoded", encodes)
    found = sequences(ready, tmp_path / "cache2")
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(found[0])
    assert bool(len(found[1])) == bool(holdout)
    assert f"{done.tokens:,} tokens, from file://" in preflight(ready)


def test_a_split_of_its_own_stays_held_out(job: Job, tmp_path: Path) -> None:
    lines(tmp_path / "raw" / "train")
    lines(tmp_path / "raw" / "validation", 1)
    raw = job("language", f"file://{tmp_path / 'raw'}", LANGUAGE)
    made(raw, tmp_path / "out", tmp_path / "scratch", size=2000)
    found = sequences(job("language", f"file://{tmp_path / 'out'}", LANGUAGE), tmp_path / "cache2")
    assert all(torch.equal(one, other) for one, other in zip(found, sequences(raw, tmp_path / "cache"), strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_prepared_pictures_have_the_pixels_of_the_pictures(job: Job, tmp_path: Path, channels: int) -> None:
    images = {"size": 16, "channels": channels}
    raw = job("vae", f"file://{pictures(tmp_path / 'raw')}", images=images, labels="folder", holdout=0)
    expected = open_source(raw, tmp_path / "cache")
    done = made(raw, tmp_path / "out", tmp_path / "scratch", size=1)
    assert done.rows == 24
    assert done.columns == ("label: cls",)
    found = open_source(job("vae", f"file://{tmp_path / 'out'}", images=images, columns={"label": "cls"}, holdout=0), tmp_path / "cache2")
    assert torch.equal(found.pixels, expected.pixels)  # type: ignore[attr-defined]
    assert torch.equal(found.beside.label, expected.beside.label)  # type: ignore[attr-defined]
    assert found.info.classes == ("0", "1")


def test_what_is_there_is_not_made_again(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = job("language", f"file://{lines(tmp_path / 'raw')}", BPE)
    whole = made(raw, tmp_path / "whole", tmp_path / "a", size=4000)

    def stops(one: Callable[[Task], Entry], tasks: Sequence[Task]) -> Iterable[tuple[Task, Entry]]:
        yield tasks[1], one(tasks[1])
        one(tasks[0])  # stored, and not in the manifest yet
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(raw, tmp_path / "out", tmp_path / "b", work=stops, size=4000)
    with pytest.raises(JobError, match="not prepared to its end") as caught:
        preflight(job("language", f"file://{tmp_path / 'out'}", BPE))
    assert caught.value.code == "GTJ0113"
    again = made(raw, tmp_path / "out", tmp_path / "c", work=threads, size=4000)
    assert again.before == 1
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    monkeypatch.setattr(prepare_text.Tokens, "write", lambda *_: pytest.fail("a shard is made again"))
    last = made(raw, tmp_path / "out", tmp_path / "d", size=4000)
    assert last.before == len(whole.prepared.shards)
    assert last.bytes == 0


def refused(code: str, words: str, call: Callable[[], object]) -> None:
    with pytest.raises(JobError) as caught:
        call()
    assert caught.value.code == code
    assert words in caught.value.line()
    assert caught.value.how


def test_other_settings_are_refused(job: Job, tmp_path: Path) -> None:
    out = f"file://{tmp_path / 'out'}"
    raw = job("language", f"file://{lines(tmp_path / 'raw')}", BPE)
    made(raw, tmp_path / "out", tmp_path / "scratch")
    other = {**LANGUAGE, "tokenizer": {"type": "bpe", "vocabularySize": 301}}
    for spec, words in [
        (job("language", out, LANGUAGE), "tokenizer was bpe, and the job has byte"),
        (job("language", out, other), "vocabularySize was 300, and the job has 301"),
        (job("language", out, BPE, holdout=0.1), "holdout was 0.05, and the job has 0.1"),
        (job("language", out, BPE, limit=5), "limit was not set, and the job has 5"),
        (job("vae", out), "a vae job cannot learn from tokens"),
    ]:
        refused("GTJ0108", words, lambda spec=spec: preflight(spec))  # type: ignore[misc]
        refused("GTJ0108", words, lambda spec=spec: open_source(spec, tmp_path / "cache"))  # type: ignore[misc]
    refused(
        "GTJ0108",
        "vocabularySize was 300, and is 301 now",
        lambda: made(job("language", f"file://{tmp_path / 'raw'}", other), tmp_path / "out", tmp_path / "scratch"),
    )
    (tmp_path / "raw" / "part-0.jsonl").write_text('{"text": "another"}\n')
    refused("GTJ0108", "has changed since", lambda: made(raw, tmp_path / "out", tmp_path / "scratch"))
    refused("GTJ0108", "prepared already", lambda: made(job("language", out, BPE), tmp_path / "out2", tmp_path / "scratch"))


def test_what_is_not_prepared_is_refused(job: Job, tmp_path: Path) -> None:
    def spec(**data: Any) -> Spec:
        return Spec.model_validate({"language": {}, "data": data, "training": {"steps": 1}})

    two = [{"source": "file:///a"}, {"source": "file:///b"}]
    refused("GTJ0108", "a mixture", lambda: made(spec(sources=two), tmp_path / "out", tmp_path))
    refused("GTJ0108", "built in", lambda: made(spec(source="builtin:stdlib-text"), tmp_path / "out", tmp_path))
    refused("GTJ0108", "left out", lambda: made(spec(source="file:///a", onBadSample="skip"), tmp_path / "out", tmp_path))
    assert not (tmp_path / "out").exists()


def test_damage_is_told(job: Job, tmp_path: Path) -> None:
    made(job("language", f"file://{lines(tmp_path / 'raw')}", BPE), tmp_path / "out", tmp_path / "scratch", size=4000)
    spec = job("language", f"file://{tmp_path / 'out'}", BPE)
    shard = next((tmp_path / "out").glob("*.parquet"))
    data = shard.read_bytes()
    shard.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    refused("GTJ0113", "damaged", lambda: open_source(spec, tmp_path / "a"))
    shard.unlink()
    refused("GTJ0113", f"{shard.name} is missing", lambda: preflight(spec))
    shard.write_bytes(data)
    tokenizer = (tmp_path / "out" / "tokenizer.json").read_bytes()
    (tmp_path / "out" / "tokenizer.json").write_bytes(tokenizer + b" ")
    refused("GTJ0113", "tokenizer.json does not belong", lambda: open_source(spec, tmp_path / "a"))
    (tmp_path / "out" / "prepared.json").write_text('{"version": 2}')
    refused("GTJ0113", "version 2", lambda: preflight(spec))
    (tmp_path / "out" / "prepared.json").write_text("{")
    refused("GTJ0113", "cannot be read", lambda: preflight(spec))


def test_a_place_that_cannot_be_written_is_told(job: Job, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    refused(
        "GTJ0114",
        "cannot be written",
        lambda: made(job("language", f"file://{lines(tmp_path / 'raw')}", LANGUAGE), tmp_path / "out", tmp_path / "scratch"),
    )
