"""The index: made once, kept, shared, told of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.api.errors import JobError
from trainjobs.data.forms.index import EVERY, Arrays, Indexing, Names


def test_what_was_found_out_is_kept_until_the_key_is_another(tmp_path: Path) -> None:
    made = list[int]()

    def make(number: int) -> Arrays:
        made.append(number)
        return {"rows": np.array(number), "values": np.arange(number)}

    for keys, expected in ((["a", "b", "c"], [0, 1, 2]), (["a", "b", "c"], []), (["a", "other", "c", "d"], [1, 3])):
        made.clear()
        found = Indexing(tmp_path).of(keys, make)
        assert sorted(made) == expected
        assert [len(arrays["values"]) for arrays in found] == list(range(len(keys)))
    assert len(list((tmp_path / "index").glob("*.npz"))) == 5


def test_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    Indexing(tmp_path).of(["a"], lambda _: {"values": np.arange(100)})
    (path,) = (tmp_path / "index").glob("*.npz")
    path.write_bytes(path.read_bytes()[:50])
    (found,) = Indexing(tmp_path).of(["a"], lambda _: {"values": np.arange(7)})
    assert len(found["values"]) == 7


def test_progress_is_said_at_most_every_two_seconds(tmp_path: Path) -> None:
    said, now = list[str](), 0.0

    def clock() -> float:
        nonlocal now
        now += 0.25
        return now

    Indexing(tmp_path, say=said.append, clock=clock).of([str(number) for number in range(40)], lambda _: {"rows": np.array(1000)})
    assert len(said) == int(40 * 0.25 / EVERY) == 5
    assert said[0] == "indexing the data: 8 of 40 shards, 8,000 samples, 2 s"


def test_the_first_error_is_raised_and_what_was_good_is_kept(tmp_path: Path) -> None:
    def make(number: int) -> Arrays:
        if number in (2, 3):
            raise JobError("GTJ0113", f"shard {number}")
        return {"rows": np.array(1)}

    with pytest.raises(JobError, match="shard 2"):
        Indexing(tmp_path).of([str(number) for number in range(5)], make)
    assert len(list((tmp_path / "index").glob("*.npz"))) == 3


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file where the folder would be")
    with pytest.raises(JobError, match="GTJ0114"):
        Indexing(tmp_path).of(["a"], lambda _: {"rows": np.array(1)})


@given(st.lists(st.text(max_size=10).map(lambda text: text.encode("utf-8", "replace").decode()), max_size=10))
def test_names_in_one_array(names: list[str]) -> None:
    kept = Names(*Names.arrays(names))
    assert [kept[number] for number in range(len(kept))] == names
