"""Parquet that pyarrow writes, with the columns of Hugging Face's `datasets`."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.forms.laid import Laid, everything, opened
from trainjobs.api.errors import JobError
from trainjobs.data.forms import parquet
from trainjobs.data.forms.parquet import Parquet
from trainjobs.data.forms.recent import Recent

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}, "text": {"_type": "Value"}}


def hub(path: Path, rows: int, first: int = 0, group: int = 4, **more: Any) -> pa.Table:
    """As `datasets` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(first, first + rows)
    table = pa.table(
        {
            "image": pa.array([{"bytes": f"jpeg {number}".encode(), "path": None} for number in numbers], IMAGE),
            "label": pa.array([number % 2 for number in numbers], pa.int64()),
            "text": [f"text {number}" for number in numbers],
            **more,
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    pq.write_table(table, path, row_group_size=group)
    return table


@pytest.mark.parametrize("here", [True, False])
def test_a_block_is_a_row_group(tmp_path: Path, here: bool) -> None:
    tables = [hub(tmp_path / "data" / f"{number}.parquet", 10, 10 * number) for number in range(2)]
    records, board = opened(tmp_path / "data", here)
    assert isinstance(records, Parquet)
    assert records.columns == {"image": "image", "label": "integer", "text": "text"}
    assert list(records.words()) == ["parquet, 2 shards, 20 samples, image + label + text"]
    assert [block.rows for block in records.blocks] == [4, 4, 2, 4, 4, 2]
    assert [block.objects[0].name for block in records.blocks] == ["0.parquet"] * 3 + ["1.parquet"] * 3
    assert records.names(4) == ["1.parquet/4", "1.parquet/5", "1.parquet/6", "1.parquet/7"]
    rows = everything(records, board)
    assert [row.values["text"] for row in rows] == [text for table in tables for text in table.column("text").to_pylist()]
    assert [row.values["image"] for row in rows] == [f"jpeg {number}".encode() for number in range(20)]
    assert rows[13].name == "1.parquet/3"
    assert rows[13].where.endswith("1.parquet, row 3")
    assert records.classes == {"label": ["cat", "dog"]}
    picked = records.read(board, 5, [1, 0], ["label"])
    assert [row.values for row in picked] == [{"label": 1}, {"label": 0}]


def test_pictures_of_an_extension_type_are_read_as_what_it_stores(tmp_path: Path) -> None:
    """As Arrow's own reading gives them where a library has named its type."""

    class Photo(pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(IMAGE, "tests.photo")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Photo:
            return cls()

    (tmp_path / "data").mkdir()
    pa.register_extension_type(Photo())
    try:
        stored = pa.array([{"bytes": b"jpeg", "path": "0.jpg"}, None], IMAGE)
        pq.write_table(pa.table({"image": pa.ExtensionArray.from_storage(Photo(), stored)}), tmp_path / "data" / "0.parquet")
        records, board = opened(tmp_path / "data", True)
        assert records.columns == {"image": "image"}
        assert [row.values["image"] for row in everything(records, board)] == [b"jpeg", None]
    finally:
        pa.unregister_extension_type("tests.photo")


@pytest.mark.parametrize("here", [True, False])
def test_a_picture_that_is_not_there_is_nothing(tmp_path: Path, here: bool) -> None:
    """A struct that is null, and one whose bytes are."""
    (tmp_path / "data").mkdir()
    pictures: list[dict[str, Any] | None] = [{"bytes": b"jpeg", "path": "0.jpg"}, None, {"bytes": None, "path": "2.jpg"}]
    pq.write_table(pa.table({"image": pa.array(pictures, IMAGE)}), tmp_path / "data" / "0.parquet")
    records, board = opened(tmp_path / "data", here)
    expected = [b"jpeg", None, None]
    assert [row.values["image"] for row in everything(records, board)] == expected
    assert [row.values["image"] for row in records.first(3)] == expected
    assert list(records.column(board, 0, "image")) == expected


def test_every_kind_of_column(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    messages = [{"role": "user", "content": "hello"}]
    table = pa.table(
        {
            "messages": [messages],
            "score": [0.5],
            "ok": [True],
            "raw": [b"\0"],
            "jpg": [b"jpeg"],
            "word": pa.array(["a"]).dictionary_encode(),
            "when": pa.array([0], pa.timestamp("s")),
            "meta": [{"a": 1}],
        }
    )
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    records, board = opened(tmp_path / "data")
    kinds = ["list", "number", "boolean", "bytes", "image", "text", "text", "record"]
    assert list(records.columns.values()) == kinds
    (row,) = everything(records, board, "messages", "score", "word", "jpg")
    assert row.values == {"messages": messages, "score": 0.5, "word": "a", "jpg": b"jpeg"}


def test_shards_of_other_columns_are_told_apart(tmp_path: Path) -> None:
    hub(tmp_path / "data" / "0.parquet", 4)
    pq.write_table(pa.table({"image": ["a path"], "text": ["b"], "more": [1]}), tmp_path / "data" / "1.parquet")
    with pytest.raises(JobError) as raised:
        opened(tmp_path / "data")
    error = raised.value
    assert (error.code, error.what) == ("GTJ0113", "1.parquet has other columns")
    assert error.where == str(tmp_path / "data" / "1.parquet")
    assert error.why.startswith("it lacks label, it has more besides, its image is string and not struct<bytes: binary, path: string>")
    assert error.why.endswith("compared with 0.parquet")


def test_whole_numbers_of_two_widths_are_one_column(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for width in ("int32", "int64"):
        pq.write_table(pa.table({"label": pa.array([1], width)}), tmp_path / "data" / f"{width}.parquet")
    records, board = opened(tmp_path / "data")
    assert [row.values["label"] for row in everything(records, board)] == [1, 1]


def test_too_many_columns_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({f"c{number}": pa.nulls(0) for number in range(10_001)}), tmp_path / "data" / "a.parquet")
    started = time.monotonic()
    with pytest.raises(JobError) as raised:
        opened(tmp_path / "data")
    assert time.monotonic() - started < 5
    assert (raised.value.code, raised.value.what) == ("GTJ0113", "a.parquet has too many columns")
    assert raised.value.why == "it has 10,001 columns"


@pytest.mark.parametrize("cut", [0.5, 0.999])
def test_what_is_no_parquet_is_said(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "data" / "a.parquet"
    hub(path, 10)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(JobError) as raised:
        opened(tmp_path / "data")
    assert (raised.value.code, raised.value.what, raised.value.where) == ("GTJ0113", "a.parquet is not Parquet", str(path))
    assert raised.value.how == "copy it again: it may be cut short"


def test_a_broken_footer_and_a_broken_page(tmp_path: Path) -> None:
    path = tmp_path / "data" / "a.parquet"
    hub(path, 10)
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[:-200] + b"\xff" * 150 + whole[-50:])
    with pytest.raises(JobError, match=r"GTJ0113 a\.parquet cannot be read as Parquet"):
        opened(tmp_path / "data")
    path.write_bytes(whole[:4] + b"\xff" * 120 + whole[124:])
    records, board = opened(tmp_path / "data")
    with pytest.raises(JobError, match=r"GTJ0113 a.parquet cannot be read as Parquet \(.*a.parquet, row group 0\)"):
        everything(records, board)


def test_no_rows(tmp_path: Path) -> None:
    hub(tmp_path / "data" / "a.parquet", 0)
    with pytest.raises(JobError, match="GTJ0113 there is no row in the data"):
        opened(tmp_path / "data")


def test_footers_alone_are_fetched_for_the_index(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(100_000)
    hub(tmp_path / "data" / "a.parquet", 20, more=pa.array([noise] * 20))
    records, board = opened(tmp_path / "data", here=False)
    assert records.names(0)
    assert board.held == []
    assert isinstance(records.place, Laid)
    size = (tmp_path / "data" / "a.parquet").stat().st_size
    assert sum(min(stop, size) - start for _, start, stop in records.place.reads) < 0.2 * size
    assert len(records.place.reads) == 2, "the end, and the first four bytes"


def test_a_row_group_is_decoded_once_by_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(tmp_path / "data" / "a.parquet", 8, group=8)
    records, board = opened(tmp_path / "data")
    assert isinstance(records, Parquet)
    decoded = list[int]()
    inner = Parquet._decoded

    def counted(self: Parquet, found: Any, path: Path | None, group: int, names: Any) -> Any:
        decoded.append(group)
        return inner(self, found, path, group, names)

    monkeypatch.setattr(Parquet, "_decoded", counted)
    mine = parquet.Parquet(records.place, records.shards, records.columns, (), recent=Recent())
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda row: mine.read(board, 0, [row], ["text"])[0].values["text"], range(8)))
    assert rows == [f"text {row}" for row in range(8)]
    assert decoded == [0]


def test_what_was_decoded_stays_within_its_bytes() -> None:
    recent, made = Recent(limit=100), list[str]()

    def get(key: str, size: int) -> str:
        def make() -> tuple[str, int]:
            made.append(key)
            return key.upper(), size

        return str(recent.get(key, make))

    assert [get(key, 40) for key in ("a", "b", "a", "c", "a", "b")] == ["A", "B", "A", "C", "A", "B"]
    assert made == ["a", "b", "c", "b"]
    assert get("huge", 101) == "HUGE"
    assert recent.bytes == 80
