"""JSON Lines, plain and packed."""

from __future__ import annotations

import gzip
import json
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.forms.laid import Board, Laid, data, everything, opened
from trainjobs.api.errors import JobError
from trainjobs.data.forms import cursor, jsonl, lined, streams
from trainjobs.data.forms.index import Indexing
from trainjobs.data.forms.recent import Recent
from trainjobs.data.forms.recognise import find
from trainjobs.data.forms.streams import Limits

PACK = {
    "": lambda text: text,
    ".gz": gzip.compress,
    ".zst": lambda text: pa.compress(text, "zstd", asbytes=True),
}


def write(path: Path, text: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PACK[path.suffix if path.suffix in PACK else ""](text))
    return path


def broken(root: Path, **fields: object) -> JobError:
    with pytest.raises(JobError) as raised:
        everything(*opened(root, **fields))  # type: ignore[arg-type]
    return raised.value


ODD = (
    b'\xef\xbb\xbf{"text": "one", "n": 1}\r\n\r\n  \n{"text": "two\\u00e9", "n": 2}\n'
    b'\t{"n": 3, "text": "three"}\n\n{"text": "last", "n": 4}'
)


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json-lines", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("here", [True, False])
def test_bom_crlf_and_empty_lines_are_no_records(tmp_path: Path, suffix: str, here: bool) -> None:
    write(tmp_path / "data" / f"a{suffix}", ODD)
    records, board = opened(tmp_path / "data", here)
    assert dict(records.columns) == {"text": "text", "n": "integer"}
    assert list(records.words()) == ["jsonl, 1 file, 4 samples, text + n"]
    rows = everything(records, board)
    assert [(row.values["text"], row.values["n"]) for row in rows] == [("one", 1), ("twoé", 2), ("three", 3), ("last", 4)]
    assert [row.where.rpartition(":")[2] for row in rows] == ["1", "4", "5", "7"]
    assert records.names(0) == ["one", "twoé", "three", "last"]
    assert [row.values["n"] for row in records.read(board, 0, [3, 0, 3], ["n"])] == [4, 1, 4]


def test_a_record_without_text_is_named_by_its_line(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl", b'{"q": 1}\n')
    records, _ = opened(tmp_path / "data")
    assert records.names(0) == ['{"q": 1}']


LINES = st.one_of(st.text(max_size=8).map(lambda text: json.dumps({"text": text})), st.sampled_from(["", " ", "\r", "\t \r"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(LINES, max_size=12), st.booleans())
def test_the_index_is_that_of_reading_line_by_line(lines: list[str], ended: bool) -> None:
    text = "\n".join([*lines, '{"text": "end"}']).encode() + (b"\n" if ended else b"")
    arrays = jsonl.arrays_of(_once(text, 7), "a", "a")
    expected = [number for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
    assert arrays["lines"].tolist() == expected
    starts = arrays["starts"].tolist()
    read = [json.loads(text[start:stop]) for start, stop in zip(starts, [*starts[1:], int(arrays["size"])], strict=True)]
    assert read == [json.loads(line) for line in text.split(b"\n") if line.strip()]


def _once(text: bytes, size: int):  # type: ignore[no-untyped-def]
    at = 0

    def read(_: int) -> bytes:
        nonlocal at
        at += size
        return text[at - size : at]

    return read


@pytest.mark.parametrize(
    ("line", "what", "why"),
    [
        (b'{"text": ', "the line is not JSON", "Expecting value at character 11 of the line"),
        (b"[1, 2]", "the line is not a JSON object", "it is a list"),
        (b'{"txt": "a"}', "the record has no text in field text", "its fields are txt"),
        (b'{"text": 5}', "the record has no text in field text", "it is 5"),
        (b'{"text": null}', "the record has no text in field text", "it is null"),
    ],
)
def test_a_record_of_another_schema_is_named_by_line(tmp_path: Path, line: bytes, what: str, why: str) -> None:
    good = b'{"text": "good"}\n'
    path = write(tmp_path / "data" / "a.jsonl", good * 300 + b"\n" + line + b"\n" + good)
    error = broken(tmp_path / "data")
    assert (error.code, error.what, error.where) == ("GTJ0113", what, f"{path}:302")
    assert error.why == why


def test_fields_that_some_records_lack_are_empty(tmp_path: Path) -> None:
    write(
        tmp_path / "data" / "a.jsonl",
        b'{"text": "a"}\n{"text": "b", "system": "s"}\n{"text": "c", "system": null, "score": 1}\n{"text": "d", "score": 0.5}',
    )
    records, board = opened(tmp_path / "data")
    assert records.columns == {"text": "text", "system": "text", "score": "number"}
    assert [row.values["system"] for row in everything(records, board)] == [None, "s", None, None]


def test_files_that_contradict_each_other(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl", b'{"text": "a"}\n')
    write(tmp_path / "data" / "b.jsonl", b'{"text": ["b"]}\n')
    error = broken(tmp_path / "data")
    assert (error.what, error.why) == ("b.jsonl has other columns", "its text is lists, that of a.jsonl is text")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_bytes_that_are_no_utf8(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / "data" / f"a{suffix}", b'\xef\xbb\xbf{"text": "good"}\n{"text": "caf\xe9"}\n')
    error = broken(tmp_path / "data")
    assert (error.code, error.what, error.where) == ("GTJ0113", f"a{suffix} is not UTF-8 text", f"{path}:2")
    assert error.why == "byte 33 of the file, 0xe9, is none of UTF-8 there (invalid continuation byte)"


def test_utf16_is_said(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl", '{"text": "a"}\n'.encode("utf-16"))
    error = broken(tmp_path / "data")
    assert error.why == "it begins as UTF-16 does"
    assert error.how == "convert it: iconv -f utf-16 -t utf-8 a.jsonl"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_cut_short(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / "data" / f"a.jsonl{suffix}", b"".join(b'{"text": "%d"}\n' % number for number in range(10_000)))
    path.write_bytes(path.read_bytes()[:-500])
    error = broken(tmp_path / "data")
    assert (error.code, error.what) == ("GTJ0113", f"a.jsonl{suffix} cannot be unpacked")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("limits", [Limits(most=1_000_000), Limits(free=1_000_000, ratio=20)])
def test_a_decompression_bomb_is_named(tmp_path: Path, suffix: str, limits: Limits) -> None:
    path = write(tmp_path / "data" / f"a.jsonl{suffix}", b'{"text": "' + b"a" * 9_000_000 + b'"}\n')
    place, board = Laid(tmp_path / "data"), Board(tmp_path / "shelf")
    found = find(place, place.listed(), data(), board)
    with pytest.raises(JobError) as raised:
        jsonl.open_jsonl(found, Indexing(tmp_path / "cache"), limits)
    error = raised.value
    assert (error.code, error.what, error.where) == ("GTJ0113", f"a.jsonl{suffix} is a decompression bomb", str(path))
    assert error.why.startswith(f"its {path.stat().st_size:,} bytes unpack to more than ")


def test_a_line_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHUNK", 1000)
    with pytest.raises(JobError, match=r"GTJ0113 a line of a has no end .*line 2 has more than 3,000 bytes"):
        list(streams.pieces(_once(b"good\n" + b"x" * 10_000, 1000), "a", "a", 3000))


@pytest.mark.parametrize("recent", [Recent(), Recent(limit=10)])
def test_packed_files_larger_than_memory_may_hold_are_streamed(tmp_path: Path, recent: Recent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "CHUNK", 100)
    write(tmp_path / "data" / "a.jsonl.gz", b"".join(b'{"text": "%d"}\n' % number for number in range(500)))
    records, board = opened(tmp_path / "data")
    object.__setattr__(records, "recent", recent)
    rows = [499, 0, 250, 251, 0, 17]
    assert [row.values["text"] for row in records.read(board, 0, rows, ["text"])] == [str(row) for row in rows]


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl", b'{"text": "a\\ud800b"}\n')
    (row,) = everything(*opened(tmp_path / "data"))
    assert row.values["text"] == row.name == "a?b"


def test_nothing_but_empty_lines(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl", b"\n\r\n \n")
    assert broken(tmp_path / "data").what == "there is no record in the data"


def test_rows_of_a_plain_file_are_read_by_themselves(tmp_path: Path) -> None:
    """The index is made of the whole file; afterwards a row costs its own bytes."""
    write(tmp_path / "data" / "a.jsonl", b"".join(b'{"text": "%06d"}\n' % number for number in range(1000)))
    records, _ = opened(tmp_path / "data")
    asked = list[int]()
    inner = lined.reading

    def counted(*arguments):  # type: ignore[no-untyped-def]
        @contextmanager
        def wrapped():  # type: ignore[no-untyped-def]
            with inner(*arguments) as read:
                yield lambda start, stop: asked.append(stop - start) or read(start, stop)

        return wrapped()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lined, "reading", counted)
        assert records.read(Board(tmp_path / "shelf"), 0, [998], ["text"])[0].values["text"] == "000998"
    assert sum(asked) == len('{"text": "000998"}\n')


def test_a_bad_line_is_no_bad_file(tmp_path: Path) -> None:
    path = write(tmp_path / "data" / "a.jsonl", b'{"text": "good"}\n{"text": \n{"text": "too"}\n')
    with pytest.raises(JobError, match=r"GTJ0113 the line is not JSON \(.*a.jsonl:2\)"):
        opened(tmp_path / "data")
    records, board = opened(tmp_path / "data", onBadSample="skip")
    assert records.names(0) == ["good", '{"text":', "too"]
    assert [row.values["text"] for row in records.read(board, 0, [0, 2], ["text"])] == ["good", "too"]
    with pytest.raises(JobError) as raised:
        records.read(board, 0, [1], ["text"])
    assert raised.value.where == f"{path}:2"
