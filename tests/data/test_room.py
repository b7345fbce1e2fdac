"""Tokens that are larger than the disk that they may take."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.places.memory import MemoryBucket
from tests.data.places.memory import place as placed
from tests.data.test_prepare import in_turn
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.cli.main import status
from trainjobs.data import found, open_source, text
from trainjobs.data.dataset import Reading
from trainjobs.data.prepare import prepare
from trainjobs.stores.file import FileStore

Make = Callable[..., Spec]
RECORD = json.dumps({"text": "word " * 200}) + "\n"  # 1001 tokens of bytes, 2 bytes each


def written(folder: Path, records: int = 1000) -> str:
    (folder / "raw").mkdir()
    for part in range(4):
        (folder / "raw" / f"{part}.jsonl").write_text(RECORD * (records // 4))
    return f"file://{folder}/raw"


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not {"index", "fetched"} & {*path.parts})


@pytest.mark.parametrize("holdout", [0.0, 0.1])
def test_it_is_told_with_how_much_they_take_before_the_disk_is_full(holdout: float, job: Make, tmp_path: Path) -> None:
    spec, cache = job("language", written(tmp_path), cache="1M", holdout=holdout), tmp_path / "cache"
    most = 0
    write = text.encoded

    def watched(*arguments: Any) -> Any:
        nonlocal most
        for row in write(*arguments):
            most = max(most, on_disk(cache))
            yield row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "encoded", watched)
        patch.setattr(text, "_BATCH", 10_000)
        with pytest.raises(JobError) as caught:
            open_source(spec, cache)
    assert (caught.value.code, caught.value.exit_code, caught.value.where) == ("GTJ0114", 7, spec.data.source)
    assert caught.value.what == "the tokens are larger than data.cache"
    assert caught.value.why == "they take about 2.0 MB of the disk, and 1.0 MB of data.cache is for them"
    assert caught.value.how.startswith("raise data.cache by 2.0 MB or more")
    assert 0 < most <= 1_000_000
    assert on_disk(cache) == 0, "nothing of it is left"
    assert open_source(job("language", spec.data.uri, cache="2050k", holdout=holdout), cache).info.length > 0


def test_what_was_prepared_is_refused_before_a_byte_of_it_is_laid_out(job: Make, tmp_path: Path) -> None:
    raw = job("language", written(tmp_path))
    prepare(raw, FileStore(tmp_path / "out"), Reading(tmp_path / "first"), 1 << 20, in_turn)
    with pytest.raises(JobError) as caught:
        open_source(job("language", f"file://{tmp_path}/out", cache="1M"), tmp_path / "cache")
    assert caught.value.why == "they take 2.0 MB of the disk, and 1.0 MB of data.cache is for them"
    assert on_disk(tmp_path / "cache") == 0


def test_of_a_bucket_half_of_the_cache_is_for_what_is_fetched(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryBucket({f"data/{part}.jsonl": (RECORD * 20).encode() for part in range(4)})
    monkeypatch.setattr(found, "open_place", lambda uri, patience=None: placed(bucket, "data"))
    monkeypatch.setattr(text, "_BATCH", 1000)
    with pytest.raises(JobError, match=r"they take about 0\.2 MB of the disk, and 0\.1 MB of data\.cache"):
        open_source(job("language", "s3://bucket/data", cache="200k"), tmp_path / "cache")
    assert open_source(job("language", "s3://bucket/data", cache="350k"), tmp_path / "cache").info.length > 0


def test_a_disk_that_fills_while_they_are_written(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> Any:
        yield False, np.zeros(1000, dtype=np.int32)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(text, "encoded", full)
    with pytest.raises(JobError) as caught:
        open_source(job("language", written(tmp_path)), tmp_path / "cache")
    assert (caught.value.code, caught.value.exit_code) == ("GTJ0114", 7)
    assert (caught.value.why, caught.value.how) == ("No space left on device", "free space there, or choose another run folder")
    assert on_disk(tmp_path / "cache") == 0


def test_the_command_line_ends_with_the_status_of_the_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"{{source: '{written(tmp_path)}', cache: 1M}}"
    head = "apiVersion: gentrain.dev/v1alpha1\nkind: GenerativeTrainingJob\nmetadata: {name: words}\n"
    (tmp_path / "job.yaml").write_text(f"{head}spec: {{language: {{}}, data: {data}, training: {{steps: 1}}}}\n")
    assert status(["data", "-f", str(tmp_path / "job.yaml")]) == 7
    assert "GTJ0114 the tokens are larger than data.cache" in capsys.readouterr().err
