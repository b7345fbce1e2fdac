"""The classes of a data set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.data.forms.laid import Group, Laid, opened, tar
from tests.data.forms.test_imagefolder import folder
from tests.data.forms.test_parquet import hub
from trainjobs.api.errors import JobError
from trainjobs.data.forms.labels import classes_of


def test_folders(tmp_path: Path) -> None:
    records, board = opened(folder(tmp_path / "data", "b/cat/1.png", "a/cat/1.png", "a/dog/1.png"), here=False, labels="folder")
    found = classes_of(records, "folder", board, tmp_path / "cache")
    assert found.names == ("a/cat", "a/dog", "b/cat")  # never two folders as one
    assert found.number("b/cat", "x") == 2
    assert board.held == []


def test_names_that_the_data_has_cost_nothing(tmp_path: Path) -> None:
    hub(tmp_path / "data" / "a.parquet", 10)
    records, board = opened(tmp_path / "data", here=False, where="label == 1", limit=3)
    assert isinstance(records.place, Laid)
    records.place.reads.clear()
    found = classes_of(records, "label", board, tmp_path / "cache")
    assert (found.names, dict(found.numbers)) == (("cat", "dog"), {0: 0, 1: 1})
    assert (records.place.reads, board.held) == ([], [])
    with pytest.raises(JobError, match=r"GTJ0113 the label is of no class .*it is -1, and there are 2 classes"):
        found.number(-1, "a")


def test_ranks_find_the_same_classes(tmp_path: Path) -> None:
    for shard, kinds in enumerate(("31", "15", "3")):
        tar(tmp_path / "data" / f"{shard}.tar", {f"{row}.cls": kind.encode() for row, kind in enumerate(kinds)})
    group = Group(2)

    def one(rank: int) -> tuple[str, ...]:
        records, board = opened(tmp_path / "data", ranks=group.rank(rank))
        return classes_of(records, "cls", board, tmp_path / f"cache{rank}", group.rank(rank)).names

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(2))) == [("1", "3", "5")] * 2
