"""Whose turn it is in a mixture: exact shares, counted by hand, whatever the weights; and a source made of sources."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.data.mixed import Mixed
from trainjobs.data.mixture import BLOCK, Mixture, interleaved
from trainjobs.data.source import DataInfo
from trainjobs.noise import Noise

weights = st.lists(st.sampled_from([0.001, 0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 7.5, 1000.0]), min_size=1, max_size=6).map(tuple)


@given(weights, st.integers(0, 300))
def test_counts_are_those_of_giving_turn_by_turn(weights: tuple[float, ...], turns: int) -> None:
    exact = [Fraction(str(weight)) for weight in weights]
    seats = [0] * len(weights)
    for _ in range(turns):
        seats[min(range(len(seats)), key=lambda s: ((2 * seats[s] + 1) / exact[s], s))] += 1
    assert Mixture(weights).counts(turns) == seats


@given(weights, st.integers(0, 2**40), st.integers(0, 2**31 - 1))
def test_every_block_has_its_shares_and_they_stay_exact_for_ever(weights: tuple[float, ...], block: int, seed: int) -> None:
    mixture, total = Mixture(weights), sum(Fraction(str(weight)) for weight in weights)
    which, within = mixture.at(torch.arange(block * BLOCK, (block + 1) * BLOCK), seed)
    for source, weight in enumerate(weights):
        share = Fraction(str(weight)) / total
        half = (1 + share * len(weights)) / 2  # how far Webster's numbers may be off
        assert abs(int((which == source).sum()) - BLOCK * share) <= 2 * half
        assert abs(mixture.counts(block * BLOCK)[source] - block * BLOCK * share) <= half
        own = within[which == source]
        first = mixture.counts(block * BLOCK)[source]
        assert own.tolist() == list(range(first, first + len(own)))


def test_each_source_is_read_on_from_where_it_was_however_the_stream_is_cut() -> None:
    mixture = Mixture((0.2, 0.7, 0.1))
    stream = torch.arange(10 * BLOCK + 7)
    which, within = mixture.at(stream, 3)
    for source in range(3):
        assert within[which == source].tolist() == list(range(int((which == source).sum())))
    for start in (0, 500, 1023, 1024, 5000):
        part, own = mixture.at(stream[start : start + 1500], 3)
        assert part.tolist() == which[start : start + 1500].tolist()
        assert own.tolist() == within[start : start + 1500].tolist()
    assert mixture.at(stream, 4)[0].tolist() != which.tolist()


def test_turns_are_mixed_within_a_block() -> None:
    """By chi-square over blocks, each place is the first source's equally often."""
    which, _ = Mixture((1.0, 3.0)).at(torch.arange(400 * BLOCK), 0)
    counts = torch.from_numpy(which.reshape(400, BLOCK) == 0).sum(0).double()
    variance = 400 * 0.25 * 0.75
    assert abs(float(((counts - 100) ** 2 / variance).sum()) - BLOCK) < 4 * (2 * BLOCK) ** 0.5


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5))
def test_held_out_samples_are_interleaved(counts: list[int]) -> None:
    whose, which = interleaved(counts)
    pairs = list(zip(whose.tolist(), which.tolist(), strict=True))
    assert sorted(pairs) == [(source, number) for source, count in enumerate(counts) for number in range(count)]
    for length in range(len(pairs) + 1):
        for source, count in enumerate(counts):
            assert abs(sum(1 for whose, _ in pairs[:length] if whose == source) - length * count / max(1, len(pairs))) <= len(counts)


class Numbered:
    """A source of points: (its own name, the position in its own stream)."""

    def __init__(self, name: int, length: int, heldout: int, shape: tuple[int, ...] = (2,), labels: bool = False) -> None:
        self.name, self.labels, self.info = name, labels, DataInfo("point", shape, length, heldout)
        self.seeds = set[int]()

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        self.seeds.add(seed)
        rows = torch.stack([torch.full_like(positions, self.name), positions], 1)
        return {"point": rows, "noise": noise.uniform("u"), "caption": torch.full((len(rows), self.name), self.name)}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {"point": torch.stack([torch.full_like(indices, self.name), indices], 1)}

    def conditions(self, rows: Tensor) -> dict[str, Tensor]:
        return {"label": 10 * self.name + rows} if self.labels else {}


def test_a_batch_holds_what_is_due_of_every_source_in_its_place() -> None:
    one, two = Numbered(1, 30, 3), Numbered(2, 70, 2)
    source = Mixed.of((one, two), (1.0, 3.0), ("file:///a", "file:///b"))
    assert (source.info.length, source.info.heldout) == (100, 5)
    positions = torch.arange(900, 1200)
    noise = Noise.of(0, 0, "train", positions)
    found = source.batch(positions, 5, noise)
    which, within = Mixture((1.0, 3.0)).at(positions, 5)
    assert found["point"].tolist() == [[name + 1, at] for name, at in zip(which.tolist(), within.tolist(), strict=True)]
    assert torch.equal(found["noise"], noise.uniform("u"))  # a sample's noise is its position's in the whole stream
    assert found["caption"].shape == (300, 2)
    assert set(found["caption"][torch.from_numpy(which) == 0][:, 1].tolist()) == {256}
    assert len(one.seeds | two.seeds) == 2  # the same folder twice is not read in the same order
    assert source.heldout_batch(torch.tensor([4, 0, 1])).keys() == {"point"}
    every = source.heldout_batch(torch.arange(5))["point"].tolist()
    assert sorted(every) == [[1, 0], [1, 1], [1, 2], [2, 0], [2, 1]]


def test_conditions_come_from_each_source_in_turn_where_all_have_some() -> None:
    labelled = Mixed.of((Numbered(1, 5, 0, labels=True), Numbered(2, 5, 0, labels=True)), (1.0, 1.0), ("file:///a", "file:///b"))
    assert labelled.conditions(torch.arange(5))["label"].tolist() == [10, 20, 11, 21, 12]
    half = Mixed.of((Numbered(1, 5, 0, labels=True), Numbered(2, 5, 0)), (1.0, 1.0), ("file:///a", "file:///b"))
    assert half.conditions(torch.arange(5)) == {}


def test_sources_of_another_shape_are_refused_by_name() -> None:
    with pytest.raises(JobError) as caught:
        Mixed.of((Numbered(1, 5, 0), Numbered(2, 5, 0, (3,))), (1.0, 1.0), ("s3://b/a", "s3://b/b"))
    assert caught.value.code == "GTJ0108"
    assert "(s3://b/b): it holds points of shape [3], and s3://b/a points of shape [2]" in caught.value.line()
