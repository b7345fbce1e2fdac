"""JSON Lines and text in one folder, as language models have always read them."""

from __future__ import annotations

from pathlib import Path

from tests.data.forms.laid import Board, Laid, data, everything, opened
from trainjobs.data.documents import named
from trainjobs.data.files import file_at
from trainjobs.data.forms.glance import glance


def folder(root: Path) -> Path:
    root.mkdir(parents=True)
    (root / "a.jsonl").write_text('{"text": "one", "n": 1}\n{"text": "two", "n": 2}\n')
    (root / "b.md").write_text("# three")
    (root / "c.bin").write_text("x")
    return root


def test_a_language_model_reads_both(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    records, board = opened(root, wants="text")
    assert dict(records.columns) == {"text": "text"}
    rows = everything(records, board)
    files = [file_at(root / name, name) for name in ("a.jsonl", "b.md")]
    assert [(row.name, row.values["text"]) for row in rows] == list(named(files, "text"))
    assert [name for number in range(len(records.blocks)) for name in records.names(number)] == ["one", "two", "b.md"]
    assert list(records.words()) == ["jsonl, 1 file, 2 samples, text + n, and text, 1 file, 7 bytes", "1 .bin left out"]
    place = Laid(root)
    found = glance(place, place.listed(), data(), Board(tmp_path / "shelf"), wants="text")
    assert (found.samples, list(found.words())) == (3, list(records.words()))


def test_others_leave_text_out(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    for fields in ({}, {"wants": "text", "format": "jsonl"}, {"wants": "text", "columns": {"text": "n"}}):
        records, _ = opened(root, **fields)  # type: ignore[arg-type]
        assert sum(block.rows for block in records.blocks) == 2
    assert list(opened(root)[0].words())[1] == "1 .md, 1 .bin left out"
