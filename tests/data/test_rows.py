"""Rows of blocks: which are held out, counted through, and what is read together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.data.by_name import sides
from tests.data.streams import Pictures, settings
from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Block
from trainjobs.data.places.place import Object
from trainjobs.data.rows import divided, everything


def flat(records: Pictures, numbers: np.ndarray, starts: np.ndarray) -> list[int]:
    return [records.number(block, int(row)) for block in range(len(records.lengths)) for row in numbers[starts[block] : starts[block + 1]]]


@pytest.mark.parametrize("lengths", [[100, 0, 57, 3], [2], [1, 1], [5, 4]])
@pytest.mark.parametrize("holdout", [0.0, 0.05, 0.5])
def test_sides_are_those_that_names_have_anywhere(lengths: list[int], holdout: float) -> None:
    records, data = Pictures(lengths), settings(holdout)
    names = [name for block in range(len(lengths)) for name in records.names(block)]
    expected = sides(names, data, "image")
    train, held = divided(records, data, "image")
    assert flat(records, train.numbers, train.starts) == expected[0]
    assert flat(records, held.numbers, held.starts) == expected[1]
    blocks, rows = train.at(np.arange(len(train)))
    assert [records.number(*at) for at in zip(blocks.tolist(), rows.tolist(), strict=True)] == expected[0]


def test_ranks_look_at_their_parts_and_find_the_same() -> None:
    records, data = Pictures([40, 30, 0, 50, 20]), settings(0.2)

    @dataclass
    class Rank:
        rank: int
        size: int = 2

        def gather(self, value: Any) -> list[Any]:
            parts[self.rank] = value
            return [value, parts[1 - self.rank]] if 1 - self.rank in parts else [value, {b: np.ones(r, bool) for b, r in rest(value)}]

    def rest(value: Any) -> list[tuple[int, int]]:
        return [(block, rows) for block, rows in enumerate(records.lengths) if block not in value]

    parts: dict[int, Any] = {}
    divided(records, data, "image", Rank(0))
    assert sorted(parts[0]) == [0, 2, 4]
    train, held = divided(records, data, "image", Rank(1))
    alone, aside = divided(records, data, "image")
    assert np.array_equal(train.numbers, alone.numbers)
    assert np.array_equal(held.numbers, aside.numbers)


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(JobError, match="GTJ0113 no training samples are left"):
        divided(Pictures([1]), settings(0.5), "image")


@pytest.mark.parametrize("remote", [True, False])
def test_row_groups_of_one_file_are_a_shard(remote: bool) -> None:
    """In a bucket, where the file has to be fetched as a whole, and on this machine alike."""

    class Groups(Pictures):
        @property
        def blocks(self) -> Any:
            path = None if remote else super().blocks[0].objects[0].path
            first, second, third = (Object(name, size, "1", path) for name, size in (("a", 50), ("b", 10), ("c", 20)))
            return [Block(rows, (found,)) for rows, found in zip(self.lengths, (first, first, second, third), strict=True)]

    rows = everything(Groups([3, 4, 0, 4], remote=remote))
    assert [(unit.rows, unit.size, unit.blocks) for unit in rows.units] == [(7, 50, 2), (0, 10, 1), (4, 20, 1)]
