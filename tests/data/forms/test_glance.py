"""What data is, by a few of its shards."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.forms.laid import Board, Laid, data, opened, tar
from trainjobs.api.errors import JobError
from trainjobs.data.forms.glance import Glance, glance


def seen(root: Path, here: bool = True, **fields: Any) -> tuple[Glance, Laid]:
    place = Laid(root, here)
    board = Board(root.parent / "shelf")
    found = glance(place, place.listed(), data(**fields), board)
    assert board.held == []  # nothing is fetched whole
    return found, place


def webdataset(root: Path) -> None:
    noise = np.random.default_rng(0).bytes(2000)
    for shard in range(20):
        tar(root / f"{shard:03}.tar", {f"{row:04}.{end}": noise if end == "jpg" else b"1" for row in range(150) for end in ("cls", "jpg")})


def parquets(root: Path) -> None:
    for shard in range(20):
        pq.write_table(pa.table({"text": [f"text {row}" for row in range(150)]}), root / f"{shard:03}.parquet")


def jsonls(root: Path, pack: bool = False) -> None:
    letters = np.random.default_rng(0).integers(97, 123, (20, 150, 900), dtype=np.uint8)
    for shard in range(20):
        text = b"".join(b'{"text": "%s"}\n' % letters[shard, row].tobytes() for row in range(150))
        (root / f"{shard:03}.jsonl{'.gz' if pack else ''}").write_bytes(gzip.compress(text) if pack else text)


def csvs(root: Path) -> None:
    for shard in range(20):
        (root / f"{shard:03}.csv").write_text("text,n\n" + "".join(f'"two\nlines {row:05}",{row}\n' for row in range(150)))


@pytest.mark.parametrize("write", [webdataset, parquets, jsonls, csvs, lambda root: jsonls(root, pack=True)])
@pytest.mark.parametrize("here", [True, False])
def test_the_estimate_is_near(tmp_path: Path, write: Any, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainjobs.data.forms.glance.BEGINNING", 60_000)
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    found, _ = seen(tmp_path / "data", here)
    records, _ = opened(tmp_path / "data")
    assert (found.form, found.columns, found.shards) == (records.form, records.columns, 20)
    assert not found.exact
    assert found.samples == pytest.approx(3000, rel=0.15)
    first = next(found.words())
    assert f", about {round(found.samples):,} samples, " in first
    assert len(found.head) == 4
    assert list(found.head[0].values) == list(found.columns)


def test_few_shards_are_counted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    csvs(tmp_path / "data")
    for path in sorted((tmp_path / "data").iterdir())[4:]:
        path.unlink()
    found, _ = seen(tmp_path / "data")
    assert (found.samples, found.exact) == (600, True)
    assert next(found.words()) == "csv, 4 files, 600 samples, text + n"


def test_few_bytes_are_read_of_large_shards(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(40_000)
    for shard in range(6):
        tar(tmp_path / "data" / f"{shard}.tar", {f"{row:04}.jpg": noise for row in range(200)})
    found, place = seen(tmp_path / "data", here=False)
    assert found.samples == pytest.approx(1200, rel=0.02)
    assert sum(stop - start for _, start, stop in place.reads) < 0.05 * found.bytes
    assert len(place.reads) < 4 * 64 * 2


def broken(root: Path, here: bool, **fields: Any) -> JobError:
    with pytest.raises(JobError) as raised:
        seen(root, here, **fields)
    return raised.value


@pytest.mark.parametrize("here", [True, False])
def test_what_is_broken_in_the_first_shard_is_found(tmp_path: Path, here: bool) -> None:
    for kind in (webdataset, parquets, jsonls, csvs):
        root = tmp_path / kind.__name__ / "data"
        root.mkdir(parents=True)
        kind(root)
        first = min(root.iterdir())
        whole = first.read_bytes()
        first.write_bytes(whole[: len(whole) // 2 + 300] if kind in (webdataset, parquets) else b"\xff" + whole)
        error = broken(root, here)
        assert error.code == "GTJ0113"
        assert first.name in error.where


def test_a_condition_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    parquets(tmp_path / "data")
    assert broken(tmp_path / "data", True, where="txt == 'a'").code == "GTJ0102"


def test_pictures_and_texts_are_counted(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(b"png")
    found, _ = seen(tmp_path / "data", here=False)
    assert (found.samples, found.exact, found.bytes) == (2, True, 6)
    assert found.head[1].values == {"image": b"png", "folder": "b"}
