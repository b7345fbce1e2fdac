"""The classes of a data set."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.data.forms.laid import Group, Laid, opened, tar
from tests.data.forms.test_imagefolder import folder
from tests.data.forms.test_parquet import hub
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import open_source
from trainjobs.data.forms.labels import classes_of

Make = Callable[..., Spec]


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


def test_two_splits_in_folders_of_their_own_have_the_same_classes(job: Make, tmp_path: Path) -> None:
    """As ImageNet lies on disk."""
    for split, count in ("train", 6), ("val", 2):
        for colour in ("red", "blue"):
            for number in range(count):
                path = tmp_path / "data" / split / colour / f"{split}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (10 * number, 0, 200 if colour == "blue" else 0)).save(path)
    source = open_source(job("vae", f"file://{tmp_path}/data", labels="folder", images={"size": 8}), tmp_path / "cache")
    assert (source.info.classes, source.info.length, source.info.heldout) == (("blue", "red"), 12, 4)
    held = source.heldout_batch(torch.arange(4))
    assert (held["image"][:, 2].mean((1, 2)) > 0).tolist() == [label == 0 for label in held["label"].tolist()]
