"""The page's section about the data."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from trainjobs.data.survey import Column, Survey
from trainjobs.report.data import MOST, data
from trainjobs.report.page import write_report

HOSTILE = '</script><img src=x onerror="alert(1)">'
TOLD = Survey(
    "hf://datasets/org/faces@abc",
    ("parquet, 3 shards", "split test (1 file) left out"),
    (Column("img", "image", "image", "64 x 64 PNG"), Column(HOSTILE, "text", "", HOSTILE)),
    90,
    10,
    3,
    1000,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    (tmp_path / "job.json").write_text(json.dumps({"metadata": {"name": "x"}, "spec": {"vae": {}}}))
    return tmp_path


def written(folder: Path, told: object) -> None:
    (folder / "samples" / "data.json").write_text(json.dumps(told))


def test_the_page_shows_columns_counts_and_the_first_samples(folder: Path) -> None:
    written(folder, [TOLD.as_data(), {"source": "s3://other"}])
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "PNG")
    (folder / "samples" / "data.png").write_bytes(file.getvalue())
    page = write_report(folder).read_text(encoding="utf-8")
    for words in (
        "<h2>Data</h2>",
        "hf://datasets/org/faces@abc</span> · parquet, 3 shards; split test (1 file) left out · 90 trained on, 10 held out, 3 files",
        '<td class="mono">img</td><td><span class="pill live">image</span></td><td>image</td><td class="wide">64 x 64 PNG</td>',
        '<img alt="the first samples of the data" src="data:image/png;base64,',
        '<span class="mono">s3://other</span></p>',
    ):
        assert words in page
    assert HOSTILE not in page
    assert "stands between tokens" not in page


def test_texts_are_shown_as_they_are(folder: Path) -> None:
    (folder / "samples" / "data.txt").write_text(f"--- 1 ---\na│b▮{HOSTILE}\n", encoding="utf-8")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<pre>--- 1 ---\na│b▮&lt;/script&gt;" in page
    assert "stands between tokens" in page
    assert HOSTILE not in page


def test_a_run_of_before_has_no_such_section(folder: Path) -> None:
    assert "<h2>Data</h2>" not in write_report(folder).read_text(encoding="utf-8")
    assert data(folder / "samples") is None
    assert data(folder / "nothing") is None


@pytest.mark.parametrize(
    "told", [{}, 3, [3], [], [{"columns": 3, "words": {"a": 1}, "samples": "many", "files": True}], [{"columns": [3, {}]}]]
)
def test_whatever_the_file_holds_the_page_is_written(folder: Path, told: object) -> None:
    written(folder, told)
    assert write_report(folder).is_file()
    (folder / "samples" / "data.json").write_bytes(b"\xff{")
    assert write_report(folder).is_file()


def test_of_many_columns_the_first_are_shown(folder: Path) -> None:
    columns = tuple(Column(f"column{number}", "text", "", "") for number in range(MOST + 3))
    written(folder, [Survey("x", (), columns, 1, 0, 1, 1).as_data()])
    page = write_report(folder).read_text(encoding="utf-8")
    assert f"column{MOST - 1}<" in page
    assert f"column{MOST}<" not in page
    assert "and 3 more columns" in page
