"""Text for a base: as its own tokenizer has it, read as it is or prepared ahead; prepared for another base it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.test_prepare import Entry, Job, Task, bytes_of, documents, in_turn, made, sequences
from tests.silence.pretrained import END, model
from trainjobs.api.errors import JobError
from trainjobs.data import open_source
from trainjobs.data.dataset import Reading
from trainjobs.data.prepare import elsewhere
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.stores.file import FileStore


def of(base: Path) -> dict[str, Any]:
    return {"base": {"source": f"file://{base}"}, "network": {"contextLength": 16}}


def test_prepared_text_gives_the_sequences_of_the_text(job: Job, tmp_path: Path) -> None:
    base = of(model(tmp_path / "base"))
    raw = job("language", f"file://{documents(tmp_path / 'raw')}", base)
    expected = sequences(raw, tmp_path / "cache")
    made(raw, tmp_path / "out", tmp_path / "scratch")
    found = sequences(job("language", f"file://{tmp_path / 'out'}", base), tmp_path / "cache2")
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    tokenizer = open_source(raw, tmp_path / "cache").info.tokenizer
    assert isinstance(tokenizer, PretrainedTokenizer)
    whole = "".join(tokenizer.decode(row[:-1].tolist()) for row in expected[0])
    assert whole.startswith("0 über 0 0 über 0")
    assert (expected[0] == tokenizer.end).any()


def test_what_was_prepared_for_another_tokenizer_is_refused(job: Job, tmp_path: Path) -> None:
    base, other = model(tmp_path / "base"), model(tmp_path / "other")
    told = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(told.replace(END, "<|stop|>"))
    (other / "tokenizer_config.json").write_text('{"eos_token": "<|stop|>"}')
    made(job("language", f"file://{documents(tmp_path / 'raw', 10)}", of(base)), tmp_path / "out", tmp_path / "scratch")
    out = f"file://{tmp_path / 'out'}"
    with pytest.raises(JobError, match="do not have one tokenizer") as error:
        open_source(job("language", out, of(other)), tmp_path / "cache")
    assert error.value.code == "GTJ0108"
    with pytest.raises(JobError, match="tokenizer was base, and the job has byte"):
        open_source(job("language", out, {"network": {"contextLength": 16}}), tmp_path / "cache")


def first_alone(one: Callable[[Task], Entry], tasks: Sequence[Task]) -> Iterable[tuple[Task, Entry]]:
    return in_turn(one, tasks[:1])


def test_what_goes_on_has_the_base_s_tokenizer(job: Job, tmp_path: Path) -> None:
    """Here, and where other processes make a part of it, which are given the file of the tokenizer alone."""
    raw = job("language", f"file://{documents(tmp_path / 'raw')}", of(model(tmp_path / "base")))
    whole = made(raw, tmp_path / "whole", tmp_path / "a", size=40_000)
    assert len(whole.prepared.shards) > 2
    made(raw, tmp_path / "out", tmp_path / "b", first_alone, size=40_000)
    distant = elsewhere(raw, FileStore(tmp_path / "out"), Reading(tmp_path / "c"), 40_000)
    made(raw, tmp_path / "out", tmp_path / "d", lambda _, tasks: in_turn(distant.make, tasks[:1]), size=40_000)
    made(raw, tmp_path / "out", tmp_path / "e", size=40_000)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_base_that_has_another_tokenizer_by_now_is_refused(job: Job, tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    raw = job("language", f"file://{documents(tmp_path / 'raw')}", of(base))
    made(raw, tmp_path / "out", tmp_path / "a", first_alone, size=40_000)
    told = (base / "tokenizer.json").read_text()
    (base / "tokenizer.json").write_text(told.replace(END, "<|stop|>"))
    (base / "tokenizer_config.json").write_text('{"eos_token": "<|stop|>"}')
    with pytest.raises(JobError, match="GTJ0108 the base's tokenizer has changed since a part was prepared"):
        made(raw, tmp_path / "out", tmp_path / "b", size=40_000)
