"""Records of several texts: their tokens, which of them are held out, and that they are read once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.by_name import sides
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import exchanges, open_source
from trainjobs.data.exchanges import ExchangeSource

Make = Callable[..., Spec]
CUSTOM = {"objective": "tests.data.real.recorded:build"}


def written(folder: Path, count: int = 40) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"what is {row} squared?", "completion": str(row * row) * (300 if row == 7 else 1)} for row in range(count)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file://{folder}"


def opened(job: Make, source: str, cache: Path, **data: Any) -> ExchangeSource:
    found = open_source(job("custom", source, CUSTOM, **data), cache)
    assert isinstance(found, ExchangeSource)
    return found


def of(source: ExchangeSource, rows: torch.Tensor) -> list[str]:
    return [bytes(source.tables["prompt"][row, : source.tables["prompt_length"][row]].tolist()).decode() for row in rows.tolist()]


def test_roles_become_bytes_with_their_lengths(job: Make, tmp_path: Path) -> None:
    source = opened(job, written(tmp_path / "data"), tmp_path / "cache", holdout=0)
    assert set(source.tables) == {"prompt", "prompt_length", "completion", "completion_length"}
    assert of(source, torch.arange(3)) == ["what is 0 squared?", "what is 1 squared?", "what is 2 squared?"]
    context = source.info.shape[0]
    assert source.tables["completion"].shape == (40, context)
    assert source.tables["completion"][3].tolist() == [*b"9", *[256] * (context - 1)]
    assert source.tables["completion_length"][7] == min(600, context), "cut off at its end"


@pytest.mark.parametrize("holdout", [0.1, 0.01, 0.0])
def test_those_are_held_out_whose_names_say_so(holdout: float, job: Make, tmp_path: Path) -> None:
    source = opened(job, written(tmp_path / "data"), tmp_path / "cache", holdout=holdout)
    names = [line.strip() for line in (tmp_path / "data" / "a.jsonl").read_text().splitlines()]
    train, held = sides(names, job("custom", "file:///x", CUSTOM, holdout=holdout).data, "record")
    assert (source.train.tolist(), source.held.tolist()) == (train, held)
    assert (source.info.length, source.info.heldout) == (len(train), len(held))


def test_records_are_read_once_and_of_what_is_kept_never(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, of_dataset = [], exchanges.of

    def counted(*arguments: Any) -> exchanges.Exchanges:
        made = of_dataset(*arguments)

        def read() -> Any:
            reads.append("read")
            return made.read()

        return replace(made, read=read)

    monkeypatch.setattr(exchanges, "of", counted)
    source = written(tmp_path / "data")
    first = opened(job, source, tmp_path / "cache", holdout=0.1)
    assert reads == ["read"]
    again = opened(job, source, tmp_path / "cache", holdout=0.1)
    assert reads == ["read"]
    assert torch.equal(first.held, again.held)
    assert all(torch.equal(first.tables[name], again.tables[name]) for name in first.tables)


def test_a_split_of_its_own_is_held_out(job: Make, tmp_path: Path) -> None:
    written(tmp_path / "data" / "train", 6)
    written(tmp_path / "data" / "validation", 3)
    source = opened(job, f"file://{tmp_path}/data", tmp_path / "cache")
    assert (source.train.tolist(), source.held.tolist()) == ([*range(6)], [6, 7, 8])


def test_a_table_larger_than_the_cache_is_refused_before_it_is_written(job: Make, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"GTJ0114 the tokens are larger than data\.cache"):
        open_source(job("custom", written(tmp_path / "data"), CUSTOM, cache="10k"), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").glob("exchanges-*") if path.stat().st_size]
