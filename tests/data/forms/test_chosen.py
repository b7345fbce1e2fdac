"""data.where and data.limit: fewer rows, in their blocks and their order; and the values of a column."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.forms.laid import Group, Laid, everything, opened, tar
from trainjobs.api.errors import JobError
from trainjobs.data.forms.chosen import distinct
from trainjobs.data.forms.index import Indexing


def numbers(root: Path) -> Path:
    root.mkdir(parents=True)
    for shard in range(3):
        rows = list(range(10 * shard, 10 * shard + 10))
        table = pa.table({"n": rows, "text": [f"t{row}" for row in rows], "word": ["ab"[row % 2] for row in rows]})
        pq.write_table(table, root / f"{shard}.parquet", row_group_size=4)
    return root


def test_rows_keep_their_blocks_and_their_order(tmp_path: Path) -> None:
    records, board = opened(numbers(tmp_path / "data"), where="word == 'a' and n >= 4")
    assert [row.values["n"] for row in everything(records, board)] == list(range(4, 30, 2))
    assert [block.rows for block in records.blocks] == [0, 2, 1, 2, 2, 1, 2, 2, 1]
    assert records.names(1) == ["0.parquet/4", "0.parquet/6"]
    assert records.read(board, 1, [1], ["text"])[0].values == {"text": "t6"}
    assert list(records.words()) == [
        "parquet, 3 shards, 30 samples, n + text + word; of these 13 samples (where word == 'a' and n >= 4)",
    ]


def test_of_these_the_first(tmp_path: Path) -> None:
    root = numbers(tmp_path / "data")
    for where, expected in ((None, [0, 1, 2, 3, 4]), ("n > 7", [8, 9, 10, 11, 12])):
        records, board = opened(root, where=where, limit=5)
        assert [row.values["n"] for row in everything(records, board)] == expected
    records, _ = opened(root, limit=100)
    assert sum(block.rows for block in records.blocks) == 30


def test_no_row_left(tmp_path: Path) -> None:
    with pytest.raises(JobError) as raised:
        opened(numbers(tmp_path / "data"), where="n > 100")
    assert (raised.value.code, raised.value.where) == ("GTJ0113", "data.where")
    assert raised.value.why == "of 30 samples none is as n > 100 says"


def test_ranks_choose_together_and_once(tmp_path: Path) -> None:
    root, group = numbers(tmp_path / "data"), Group(2)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda rank: opened(root, here=False, ranks=group.rank(rank), where="word == 'b'"), range(2)))
    for records, board in both:
        assert [row.values["n"] for row in everything(records, board, "n")] == list(range(1, 30, 2))
    again, _ = opened(root, here=False, where="word == 'b'")
    assert isinstance(again.place, Laid)
    assert again.place.reads == []  # the index is kept


def test_only_the_columns_of_the_condition_are_fetched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = pa.table({"n": list(range(50)), "noise": [bytes(str(row), "ascii") * 20_000 for row in range(50)]})
    pq.write_table(table, tmp_path / "data" / "a.parquet", compression="none", use_dictionary=False)
    records, board = opened(tmp_path / "data", here=False, where="n < 5")
    assert isinstance(records.place, Laid)
    assert board.held == []
    size = (tmp_path / "data" / "a.parquet").stat().st_size
    assert sum(min(stop, size) - start for _, start, stop in records.place.reads) < 0.1 * size


def test_fields_of_a_shards_json(tmp_path: Path) -> None:
    members = {f"{row}.{end}": body for row in range(4) for end, body in (("jpg", b"j"), ("json", b'{"width": %d}' % (100 * row)))}
    tar(tmp_path / "data" / "a.tar", members)
    records, board = opened(tmp_path / "data", where="json.width >= 200")
    assert [row.name for row in everything(records, board, "jpg")] == ["a.tar/2", "a.tar/3"]


def test_every_value_of_a_column(tmp_path: Path) -> None:
    for where, expected in ((None, ["a", "b"]), ("n == 3", ["b"])):
        records, board = opened(numbers(tmp_path / f"data{where}"), where=where)
        assert distinct(records, "word", board, Indexing(tmp_path / "cache")) == expected


def test_other_metadata_chooses_anew(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for expected, widths in ((["b.png"], (1, 9)), (["a.png"], (9, 1))):
        for name in ("a.png", "b.png"):
            (root / name).write_bytes(b"png")
            os.utime(root / name, (0, 0))
        (root / "metadata.csv").write_text(f"file_name,width\na.png,{widths[0]}\nb.png,{widths[1]}\n")
        os.utime(root / "metadata.csv", (widths[0], widths[0]))
        records, board = opened(root, where="width > 5")
        assert [row.name for row in everything(records, board, "folder")] == expected
