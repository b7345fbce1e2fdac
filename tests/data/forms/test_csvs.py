"""CSV and TSV, against Python's csv and pyarrow's reader."""

from __future__ import annotations

import csv
import gzip
import io
from itertools import pairwise
from pathlib import Path

import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.forms.laid import everything, opened
from trainjobs.api.errors import JobError
from trainjobs.data.forms import csvs


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(whole) if path.suffix == ".gz" else whole)
    return path


def broken(root: Path) -> JobError:
    with pytest.raises(JobError) as raised:
        everything(*opened(root))
    return raised.value


ODD = '\ufefftext,label,score,code\r\n"a, ""quoted""\r\nline",1,0.5,007\r\n\r\nplain,2,,8\r\n"",3,1e3,9'


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("here", [True, False])
def test_quoted_line_ends_a_bom_and_crlf(tmp_path: Path, name: str, here: bool) -> None:
    write(tmp_path / "data" / name, ODD)
    records, board = opened(tmp_path / "data", here)
    assert records.columns == {"text": "text", "label": "integer", "score": "number", "code": "text"}
    assert list(records.words()) == ["csv, 1 file, 3 samples, text + label + score + code"]
    rows = everything(records, board)
    assert [list(row.values.values()) for row in rows] == [
        ['a, "quoted"\r\nline', 1, 0.5, "007"],
        ["plain", 2, None, "8"],
        [None, 3, 1000.0, "9"],
    ]
    assert [row.where.rpartition(":")[2] for row in rows] == ["2", "5", "6"]
    assert records.read(board, 0, [2, 0], ["label"])[0].values == {"label": 3}


def test_names_are_texts(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.csv", "text,label\nhello,1\n")
    assert opened(tmp_path / "data")[0].names(0) == ["hello"]


def test_tabs(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.tsv", "text\tlabel\na,b\t1\n")
    (row,) = everything(*opened(tmp_path / "data"))
    assert row.values == {"text": "a,b", "label": 1}


CHARACTERS = st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00\r")
CELLS = st.text(CHARACTERS, max_size=6).filter(lambda text: not text.isspace())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_rows_are_those_of_the_csv_module(cells: list[tuple[str, str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("first", "second"), *cells])
    text = file.getvalue().encode()
    left = [text]
    arrays = csvs.arrays_of(lambda _: left.pop() if left else b"", "a.csv", "a.csv")
    starts = [*arrays["starts"].tolist(), int(arrays["size"])]
    kinds = {"first": "text", "second": "text"}
    rows = [csvs.record_of(text[start:stop], "a", list(kinds), kinds, ",") for start, stop in pairwise(starts)]  # type: ignore[arg-type]
    assert [tuple(row.values()) for row in rows] == [tuple(cell or None for cell in pair) for pair in cells]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [(["1", "-2", ""], "integer"), (["1", "2.5"], "number"), (["1", "x"], "text"), (["01", "2"], "text"), (["1e5"], "number")],
)
def test_a_column_is_what_all_of_its_values_are(tmp_path: Path, cells: list[str], kind: str) -> None:
    path = write(tmp_path / "data" / "a.csv", "k,v\n" + "".join(f"x,{cell}\n" for cell in cells))
    records, board = opened(tmp_path / "data")
    assert records.columns["v"] == kind
    if cells[0] != "01":
        assert [row.values["v"] for row in everything(records, board)] == [
            value or None for value in pyarrow.csv.read_csv(path).column("v").to_pylist()
        ]


@pytest.mark.parametrize(
    ("text", "what", "line", "why"),
    [
        ("a,b\n1,2\n\n1,2,3\n", "the row has 3 fields", 4, "the header names 2 columns"),
        ("a,b\n1\n", "the row has 1 field", 2, "the header names 2 columns"),
        ('a,b\n1,"2\n', "the row is not CSV", 2, "unexpected end of data"),
        ('a,b\n1,"2"x\n', "the row is not CSV", 2, "',' expected after '\"'"),
        ("a,a\n1,2\n", "the first line is no header", 1, "the header has a twice"),
        ("a,\n1,2\n", "the first line is no header", 1, "column 2 of the header has no name"),
        ("a;b\n1;2\n", "the file is separated by something else", 1, "its one column would be a;b"),
        (b"a,b\n1,caf\xe9\n", "a.csv is not UTF-8 text", 2, "byte 9 of the file, 0xe9, is none of UTF-8 there (invalid continuation byte)"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path: Path, text: str | bytes, what: str, line: int, why: str) -> None:
    path = write(tmp_path / "data" / "a.csv", text)
    error = broken(tmp_path / "data")
    assert (error.code, error.what, error.where, error.why) == ("GTJ0113", what, f"{path}:{line}", why)


def test_files_of_other_headers_and_none(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.csv", "a,b\n1,2\n")
    write(tmp_path / "data" / "b.csv", "a,c\n1,2\n")
    assert broken(tmp_path / "data").why == "they are a + c; those of a.csv are a + b"
    write(tmp_path / "data" / "b.csv", "a,b\n")
    write(tmp_path / "data" / "a.csv", "a,b\n")
    assert broken(tmp_path / "data").what == "there is no row in the data"
