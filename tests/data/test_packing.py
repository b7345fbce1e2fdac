"""Every prediction of every sequence is in one sample, once, and samples are as full as they can be."""

from __future__ import annotations

import random

import pytest

from trainjobs.data.packing import best_fit, none, packed, wrapped


def lengths(count: int = 200, most: int = 32) -> list[int]:
    drawn = random.Random(0)
    return [drawn.randint(1, most) for _ in range(count)]


@pytest.mark.parametrize("how", ["bfd", "wrapped", "none"])
def test_every_prediction_is_made_once_in_samples_of_at_most_a_context(how: str) -> None:
    own = lengths()
    samples = packed(how, own, 32)
    assert all(sum(last - first for _, first, last in sample) <= 32 for sample in samples)
    seen = sorted((number, at) for sample in samples for number, first, last in sample for at in range(first, last))
    assert seen == [(number, at) for number, length in enumerate(own) for at in range(length)]


def test_best_fit_cuts_nothing_and_wastes_little() -> None:
    own = lengths()
    samples = best_fit(own, 32)
    assert all(first == 0 and last == own[number] for sample in samples for number, first, last in sample)
    assert len(samples) <= 1.03 * sum(own) / 32 + 1
    assert best_fit([5, 4, 3, 2], 7) == [[(0, 0, 5), (3, 0, 2)], [(1, 0, 4), (2, 0, 3)]]  # by hand


def test_wrapped_leaves_no_gap() -> None:
    own = lengths()
    sizes = [sum(last - first for _, first, last in sample) for sample in wrapped(own, 32)]
    assert set(sizes[:-1]) == {32}
    assert wrapped([5, 4], 7) == [[(0, 0, 5), (1, 0, 2)], [(1, 2, 4)]]
    assert none([5, 4]) == [[(0, 0, 5)], [(1, 0, 4)]]
