"""Folders of pictures, with what is said of them beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.forms.laid import everything, opened
from trainjobs.api.errors import JobError


def folder(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def lines(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def broken(root: Path, **fields: Any) -> JobError:
    with pytest.raises(JobError) as raised:
        everything(*opened(root, **fields))
    return raised.value


@pytest.mark.parametrize("here", [True, False])
def test_a_row_is_a_file_and_its_folder(tmp_path: Path, here: bool) -> None:
    root = folder(tmp_path / "data", "a/cat/1.png", "b/cat/1.JPG", "root.webp", "notes.txt", "x.avi")
    records, board = opened(root, here)
    assert dict(records.columns) == {"image": "image", "folder": "text"}
    assert list(records.words()) == ["images, 3 samples, 3 folders", "1 .txt, 1 .avi left out"]
    rows = everything(records, board)
    assert [(row.name, row.values["folder"], row.values["image"]) for row in rows] == [
        ("a/cat/1.png", "a/cat", b"a/cat/1.png"),  # two folders of one name are two
        ("b/cat/1.JPG", "b/cat", b"b/cat/1.JPG"),
        ("root.webp", "", b"root.webp"),
    ]
    assert records.names(0) == ["a/cat/1.png", "b/cat/1.JPG", "root.webp"]


def test_blocks_have_some_hundred_files_of_which_those_asked_for_are_fetched(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", *(f"{number:03}.png" for number in range(600)))
    records, board = opened(root, here=False)
    assert [block.rows for block in records.blocks] == [256, 256, 88]
    assert [row.values["image"] for row in records.read(board, 2, [87, 0], ["image"])] == [b"599.png", b"512.png"]
    assert board.held == ["599.png", "512.png"]
    assert [row.values for row in records.read(board, 0, [3], ["folder"])] == [{"folder": ""}]
    assert board.held == ["599.png", "512.png"]


def test_one_folder_makes_no_classes(tmp_path: Path) -> None:
    error = broken(folder(tmp_path / "data", "cats/1.png", "cats/2.png"), labels="folder")
    assert (error.code, error.what) == ("GTJ0113", "the folders make one class only")
    assert error.why == "all 2 pictures lie in cats"
    assert opened(folder(tmp_path / "data", "dogs/1.png"), labels="folder")


def test_metadata_in_lines_also_of_subfolders(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "a/1.png", "a/2.png", "b/deep/3.png")
    lines(root / "a" / "metadata.jsonl", {"file_name": "2.png", "text": "two", "n": 2}, {"file_name": "./1.png", "text": "one", "n": 1})
    lines(root / "b" / "metadata.jsonl", {"file_name": "deep/3.png", "text": "three", "n": 0.5, "objects": {"bbox": [[1, 2]]}})
    records, board = opened(root)
    assert records.columns == {"image": "image", "folder": "text", "text": "text", "n": "number", "objects": "record"}
    assert list(records.words()) == ["images, 3 samples, 2 folders, text + n + objects"]
    rows = everything(records, board)
    assert [(row.values["text"], row.values["n"]) for row in rows] == [("one", 1), ("two", 2), ("three", 0.5)]
    assert rows[2].values["objects"] == {"bbox": [[1, 2]]}


def test_metadata_in_csv(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "1.png", "2.png")
    (root / "metadata.csv").write_text('file_name,text,label\n2.png,"a, b",5\n1.png,c,\n')
    records, board = opened(root)
    assert dict(records.columns) == {"image": "image", "folder": "text", "text": "text", "label": "integer"}
    assert [(row.values["text"], row.values["label"]) for row in everything(records, board)] == [("c", None), ("a, b", 5)]


def test_a_row_without_a_picture_and_a_picture_without_a_row(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "1.png", "2.png", "3.png")
    meta = root / "metadata.jsonl"
    lines(meta, *({"file_name": f"{number}.png"} for number in range(1, 6)))
    error = broken(root)
    assert (error.code, error.where) == ("GTJ0113", f"{meta}:4")
    assert error.what == "there is no picture 4.png, which a row names, and 1 row more"
    assert error.why == "3 rows have one"
    lines(meta, {"file_name": "2.png"})
    error = broken(root)
    assert (error.code, error.where) == ("GTJ0113", str(root / "1.png"))
    assert error.what == "nothing is said of 1.png, and nothing of 1 other"
    assert error.why == "there is no row in metadata.jsonl; 1 pictures have one"


def test_few_of_them_may_be_skipped(tmp_path: Path) -> None:
    names = [f"{number:03}.png" for number in range(200)]
    root = folder(tmp_path / "data", *names)
    lines(root / "metadata.jsonl", *({"file_name": name, "n": number} for number, name in enumerate(["gone.png", *names[1:]])))
    records, board = opened(root, onBadSample="skip")
    first, *more = records.words()
    assert first == "images, 199 samples, 1 folder, n"
    assert more == ["1 row without a picture left out, the first for gone.png", "1 picture without words left out, the first 000.png"]
    assert [row.values["n"] for row in everything(records, board, "n")] == list(range(1, 200))
    lines(root / "metadata.jsonl", *({"file_name": name} for name in names[3:]))
    assert broken(root, onBadSample="skip").what == "nothing is said of 000.png, and nothing of 2 others"


@pytest.mark.parametrize(
    ("rows", "what", "why"),
    [
        ([{"filename": "1.png"}], "the row has no file_name", "its columns are filename"),
        ([{"file_name": 5}], "the row has no file_name", "file_name is 5"),
        ([{"file_name": "1.png"}, {"file_name": "./1.png"}], "1.png has two rows", "the second is"),
        ([{"file_name": "../1.png"}], "a row names a picture outside of the data", "file_name is ../1.png"),
        (
            [{"file_name": "1.png", "image": 1}, {"file_name": "2.png"}],
            "the column image cannot be told from another",
            "a column of this name is there already",
        ),
        ([{"file_name": "1.png", "n": 1}, {"file_name": "2.png", "n": "x"}], "the column n has values of several kinds", ""),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path: Path, rows: list[dict[str, Any]], what: str, why: str) -> None:
    root = folder(tmp_path / "data", "1.png", "2.png")
    lines(root / "metadata.jsonl", *rows)
    error = broken(root)
    assert (error.code, error.what) == ("GTJ0113", what)
    assert error.why.startswith(why)


def test_two_files_of_metadata(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "1.png")
    lines(root / "metadata.jsonl", {"file_name": "1.png"})
    (root / "metadata.csv").write_text("file_name\n1.png\n")
    assert broken(root).what == "two files say what the pictures are"


def test_words_beside_a_picture(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "a/1.png", "a/2.jpg", "README.txt")
    (root / "a" / "1.txt").write_text("a cat\n")
    (root / "a" / "2.txt").write_text("a dog\r\n")
    records, board = opened(root, here=False)
    assert dict(records.columns) == {"image": "image", "folder": "text", "txt": "text"}
    assert list(records.words()) == ["images, 2 samples, 1 folder, txt", "1 .txt left out"]
    assert [row.values["txt"] for row in everything(records, board)] == ["a cat", "a dog"]
    assert {one.name for one in records.blocks[0].objects} == {"a/1.png", "a/2.jpg", "a/1.txt", "a/2.txt"}
    folder(root, "a/3.png")
    error = broken(root)
    assert (error.what, error.why) == ("nothing is said of a/3.png", "there is no 3.txt beside it; 2 pictures have one")


def test_labels_as_stylegan_writes_them(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "00000/img0.png", "00000/img1.png")
    (root / "dataset.json").write_text(json.dumps({"labels": [["00000/img1.png", 1], ["00000\\img0.png", 0]]}))
    records, board = opened(root)
    assert records.columns["label"] == "integer"
    assert [row.values["label"] for row in everything(records, board)] == [0, 1]
    (root / "dataset.json").write_text(json.dumps({"labels": None}))
    assert "label" not in opened(root)[0].columns
    (root / "dataset.json").write_text(json.dumps({"labels": [["00000/img1.png", 1]]}))
    assert broken(root).what == "nothing is said of 00000/img0.png"
    (root / "dataset.json").write_text(json.dumps({"labels": [1, 2]}))
    assert broken(root).what == "the labels are no pairs"
