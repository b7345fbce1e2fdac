"""Which samples are held out, by name: each on its own side for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Block
from trainjobs.data.holdout import is_held, position
from trainjobs.data.rows import divided


def data(holdout: float) -> Data:
    return Data.model_validate({"source": "file:///faces", "holdout": holdout})


@dataclass
class Named:
    """Records of one block, of which there is nothing but names."""

    called: Sequence[str]

    @property
    def blocks(self) -> list[Block]:
        return [Block(len(self.called), ())]

    def names(self, block: int) -> Sequence[str]:
        return self.called


def sides(names: Sequence[str], data: Data, noun: str) -> tuple[list[int], list[int]]:
    train, held = divided(cast(Any, Named(names)), data, noun)
    return train.numbers.tolist(), held.numbers.tolist()


def names(count: int) -> list[str]:
    return [f"{number:04d}.png" for number in range(count)]


def test_what_is_added_moves_nothing() -> None:
    """By place, one file more at the front moved 48 of 50 held-out images of 1,000 into training."""
    before = names(1000)
    after = ["0-first.png", *before, "z-last.png"]
    held = {before[number] for number in sides(before, data(0.05), "image")[1]}
    later = {after[number] for number in sides(after, data(0.05), "image")[1]}
    assert len(held) > 30
    assert later - {"0-first.png", "z-last.png"} == held


def test_the_share_is_about_right_and_the_sides_are_whole() -> None:
    train, held = sides(names(10_000), data(0.1), "image")
    assert sorted(train + held) == list(range(10_000))
    assert 900 < len(held) < 1100
    assert held == sorted(held)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_of_a_few_at_least_one_is_on_each_side(count: int) -> None:
    for holdout in (0.0001, 0.05, 0.5):
        train, held = sides(names(count), data(holdout), "image")
        assert train
        assert held


def test_none_are_held_out_where_none_are_asked_for() -> None:
    assert sides(names(3), data(0), "image") == ([0, 1, 2], [])


def test_one_sample_cannot_be_divided() -> None:
    with pytest.raises(JobError, match="GTJ0113 no training samples are left"):
        sides(names(1), data(0.1), "image")


def test_the_hash_is_the_same_on_every_machine_and_takes_any_name() -> None:
    """A change of it would move samples of everybody's runs."""
    assert position("a.png") == 0.49620164686382306
    assert 0 <= position("not-utf8-\udcff.png") < 1
    assert is_held("x", 1.0)
    assert not is_held("x", 0.0)
