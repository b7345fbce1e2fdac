"""Plain text: a file is a document."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.data.forms.laid import everything, opened
from trainjobs.api.errors import JobError


@pytest.mark.parametrize("here", [True, False])
def test_documents_and_names_are_those_of_before(tmp_path: Path, here: bool) -> None:
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    (root / "b.md").write_text("# žluť")
    (root / "empty.txt").write_bytes(b"")
    (root / "sub" / "c.py").write_text("print()\n")
    (root / "left.bin").write_bytes(b"\0")
    records, board = opened(root, here)
    rows = everything(records, board)
    texts = {name: (root / name).read_text(encoding="utf-8-sig") for name in ("a.txt", "b.md", "sub/c.py")}
    assert [(row.name, row.values["text"]) for row in rows] == list(texts.items())
    assert records.names(0) == ["a.txt", "b.md", "sub/c.py"]
    assert list(records.words()) == ["text, 3 files, 34 bytes", "1 .bin, 1 empty left out"]


def test_packed_text_and_many_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(300):
        (tmp_path / "data" / f"{number:03}.txt.gz").write_bytes(gzip.compress(f"text {number}".encode()))
    records, board = opened(tmp_path / "data")
    assert [block.rows for block in records.blocks] == [256, 44]
    assert [row.values["text"] for row in records.read(board, 1, [43, 0], ["text"])] == ["text 299", "text 256"]
    assert board.held == ["299.txt.gz", "256.txt.gz"]


def test_the_column_is_called_as_the_manifest_calls_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    assert list(opened(tmp_path / "data", columns={"text": "body"})[0].columns) == ["body"]
    assert list(opened(tmp_path / "data", text={"field": "content"})[0].columns) == ["content"]


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_bytes(b"good\nna\xefve\n")
    with pytest.raises(JobError) as raised:
        everything(*opened(tmp_path / "data"))
    assert (raised.value.code, raised.value.where) == ("GTJ0113", f"{tmp_path / 'data' / 'a.txt'}:2")
    assert raised.value.why.startswith("byte 7 of the file, 0xef")
