"""Packed text that is too large to be kept: read part after part, it is unpacked once."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.forms.laid import opened
from trainjobs.data.forms import cursor as module
from trainjobs.data.forms.cursor import Cursor, Cursors
from trainjobs.data.forms.recent import Recent

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": lambda text: pa.compress(text, "zstd", asbytes=True)}
TEXT = "".join(f'{{"text": "{random.Random(number).randbytes(400).hex()}"}}\n' for number in range(2000)).encode()


@pytest.mark.parametrize("suffix", PACK)
def test_a_large_file_is_unpacked_once_as_its_parts_are_read(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / f"a.jsonl{suffix}"
    path.write_bytes(PACK[suffix](TEXT))
    records, board = opened(tmp_path / "data")
    records = replace(records, recent=Recent(limit=1000), cursors=Cursors(2))  # type: ignore[type-var]
    taken = []
    inner = module.reading

    @contextmanager
    def counting(*given: object) -> Iterator[object]:
        with inner(*given) as read:  # type: ignore[arg-type]
            yield lambda start, stop: taken.append(len(data := read(start, stop))) or data

    monkeypatch.setattr(module, "reading", counting)
    expected = [row.values["text"] for row in records.read(board, 0, range(2000), ["text"])]
    assert sum(taken) <= path.stat().st_size
    taken.clear()
    records = replace(records, cursors=Cursors(2))  # type: ignore[type-var]
    found = []
    for start in range(0, 2000, 50):
        found += [row.values["text"] for row in records.read(board, 0, range(start, start + 50), ["text"])]
    assert found == expected
    assert sum(taken) <= 1.05 * path.stat().st_size  # each part by itself: twenty times as much
    assert records.read(board, 0, [3], ["text"])[0].values["text"] == expected[3]  # back to the front
    assert len(records.cursors._left) == 1  # type: ignore[attr-defined]


@given(st.lists(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=4), max_size=6))
def test_any_parts_that_follow_each_other(asked: list[list[tuple[int, int]]]) -> None:
    data = bytes(range(256)) + bytes(range(44))
    file = BytesIO(data)
    cursor = Cursor(lambda size: file.read(7))
    for parts in asked:
        places = [(start, start + size) for start, size in parts if start >= cursor.at]
        assert cursor.picked(places) == [data[start:stop] for start, stop in places]
