"""Text for a base: as its own tokenizer has it, read as it is or prepared ahead; prepared for another base it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.test_prepare import Job, documents, made, sequences
from tests.silence.pretrained import END, model
from trainjobs.api.errors import JobError
from trainjobs.data import open_source
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer


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
