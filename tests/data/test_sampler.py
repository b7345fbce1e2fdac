"""The order of the data is a pure function of the seed and the position."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.data.sampler import order, split

seeds = st.integers(0, 2**31 - 1)
lengths = st.integers(1, 50)


def stretch(seed: int, start: int, count: int, length: int) -> torch.Tensor:
    return order(torch.arange(start, start + count), seed, length)


@given(seeds, st.integers(0, 300), st.integers(0, 120), lengths, st.data())
def test_a_stretch_is_the_sum_of_its_parts(seed: int, start: int, count: int, length: int, data: st.DataObject) -> None:
    """One worker reads what two would have read, a resumed run what it would have gone on to read, in whatever order they ask."""
    cut = data.draw(st.integers(0, count))
    second = stretch(seed, start + cut, count - cut, length)
    first = stretch(seed, start, cut, length)
    whole = stretch(seed, start, count, length)
    assert whole.dtype == torch.int64
    assert torch.equal(whole, torch.cat([first, second]))


@given(seeds, st.integers(0, 300), st.integers(1, 120), lengths)
def test_a_stretch_that_is_asked_for_backwards_is_the_same_samples(seed: int, start: int, count: int, length: int) -> None:
    """One that is asked for as a step asks is a slice of the epoch."""
    positions = torch.arange(start, start + count)
    assert torch.equal(order(positions.flip(0), seed, length), stretch(seed, start, count, length).flip(0))


@given(seeds, st.integers(0, 5), lengths)
def test_an_epoch_holds_every_sample_once(seed: int, epoch: int, length: int) -> None:
    assert stretch(seed, epoch * length, length, length).sort().values.tolist() == list(range(length))


def test_a_batch_larger_than_the_data_wraps() -> None:
    assert stretch(0, 2, 10, 3).bincount().tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


def test_epochs_and_seeds_are_permuted_anew() -> None:
    first, second, other = stretch(0, 0, 1000, 1000), stretch(0, 1000, 1000, 1000), stretch(1, 0, 1000, 1000)
    # Two random permutations agree in one place on average, and in more than eight once in a million.
    for one, two in ((first, second), (first, other), (first, torch.arange(1000))):
        assert (one == two).sum() <= 8


def test_every_place_is_equally_likely() -> None:
    counts = torch.zeros(8, 8)
    for seed in range(4000):
        counts[torch.arange(8), stretch(seed, 0, 8, 8)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 86  # 49 degrees of freedom: exceeded once in a thousand


def test_what_was_handed_out_can_be_changed() -> None:
    before = stretch(0, 0, 5, 10).clone()
    stretch(0, 0, 5, 10).zero_()
    assert torch.equal(stretch(0, 0, 5, 10), before)


@given(st.integers(1, 200), st.data())
def test_a_split_leaves_nothing_out(samples: int, data: st.DataObject) -> None:
    heldout = data.draw(st.integers(0, samples))
    train, held = split(samples, heldout)
    assert (len(train), len(held)) == (samples - heldout, heldout)
    assert sorted(train.tolist() + held.tolist()) == list(range(samples))
    assert train.tolist() == sorted(train.tolist())
    assert held.tolist() == sorted(held.tolist())


def test_a_split_takes_from_everywhere() -> None:
    """Folders are often sorted by class: the last tenth would be one class."""
    held = split(10_000, 1000)[1]
    assert ((held // 1000).bincount(minlength=10) > 60).all()
