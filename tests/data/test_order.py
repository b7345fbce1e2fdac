"""The order of rows in blocks: every row once an epoch, however it is cut, mixed well, and the same wherever one begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.streams import Pictures
from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Block
from trainjobs.data.order import MEMORY, MOST, Order, Places, chosen
from trainjobs.data.places.place import Object
from trainjobs.data.rows import Rows, starts
from trainjobs.data.sampler import order
from trainjobs.plan.batch import Cut

MIXED = Order("blocks", 3, 3)
layouts = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
orders = st.builds(Order, st.just("blocks"), st.integers(1, 5), st.integers(1, 4)) | st.just(Order())


def places(lengths: list[int] | np.ndarray, order: Order = MIXED, units: list[int] | None = None) -> Places:
    return Places(order, np.asarray(lengths, np.int64), None if units is None else np.asarray(units))


def numbers(found: Places, positions: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The rows, counted through all blocks."""
    blocks, rows = found.at(positions, seed)
    assert (rows >= 0).all()
    assert (rows < found.lengths[blocks]).all()
    found_at = torch.from_numpy(starts(found.lengths)[blocks] + rows)
    assert torch.equal(found_at, torch.from_numpy(found.numbers(positions, seed)))
    return found_at


def layout(samples: int) -> np.ndarray:
    """Unequal blocks of so many rows, some of them empty."""
    cuts = np.sort(np.random.default_rng(samples).integers(0, samples + 1, min(samples, 999)))
    return np.diff(cuts, prepend=0, append=samples)


@given(layouts, orders, st.integers(0, 2**31 - 1), st.integers(0, 4))
def test_an_epoch_holds_every_row_once(lengths: list[int], order: Order, seed: int, epoch: int) -> None:
    found = places(lengths, order)
    assert found.length == sum(lengths)
    seen = numbers(found, torch.arange(epoch * found.length, (epoch + 1) * found.length), seed)
    assert sorted(seen.tolist()) == list(range(found.length))


@given(layouts, orders, st.integers(0, 99), st.integers(0, 200), st.integers(0, 60), st.data())
def test_a_stretch_is_the_sum_of_its_parts(lengths: list[int], kind: Order, seed: int, start: int, count: int, more: st.DataObject) -> None:
    """A run that goes on reads what it would have gone on to read, over windows and epochs; another object finds the same."""
    cut = more.draw(st.integers(0, count))
    stretch = torch.arange(start, start + count)
    whole = numbers(places(lengths, kind), stretch, seed)
    second = numbers(places(lengths, kind), stretch[cut:], seed)
    assert torch.equal(whole, torch.cat([numbers(places(lengths, kind), stretch[:cut], seed), second]))


@pytest.mark.parametrize("order", [Order(), Order("blocks", 4, 4)], ids=["whole", "blocks"])
@pytest.mark.parametrize("samples", [1, 7, 1000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_every_epoch_is_whole_at_any_number_of_workers(samples: int, order: Order) -> None:
    """Cut as batches are, into workers and micro-batches, with a batch that does not divide the epoch; the second epoch with others."""
    found = places(layout(samples), order)
    size = 24 if samples <= 1000 else 2_400_000
    steps = -(-2 * samples // size)
    seen = []
    for step in range(steps):
        workers = (1, 2, 3, 4)[step % 4] if step * size < samples else (4, 1, 6)[step % 3]
        cut = Cut(workers, size // workers // 2, 2)
        mine: list[torch.Tensor] = []
        for rank in range(workers):
            for turn in range(cut.accumulation):
                rows = cut.rows(rank, turn)
                mine.append(torch.arange(step * size + rows.start, step * size + rows.stop))
        positions = torch.cat(mine)
        batch = torch.empty_like(positions)
        for part in mine:
            batch[part - step * size] = numbers(found, part)
        seen.append(batch)
    stream = torch.cat(seen)
    for epoch in range(2):
        counts = torch.bincount(stream[epoch * samples : (epoch + 1) * samples], minlength=samples)
        assert torch.equal(counts, torch.ones_like(counts))
    if samples >= 1000:
        assert not torch.equal(stream[:samples], stream[samples : 2 * samples])


def test_whole_is_the_order_that_data_in_memory_has() -> None:
    assert torch.equal(numbers(places([3, 0, 5, 92], Order()), torch.arange(250), 7), order(torch.arange(250), 7, 100))


def test_a_sample_may_be_anywhere() -> None:
    """Chi-square: over seeds, each of 24 rows, in blocks of one length, is at each of 24 places equally often."""
    found = places([3] * 8, Order("blocks", 2, 2))
    counts = torch.zeros(24, 24)
    trials = 960
    for seed in range(trials):
        counts[torch.arange(24), numbers(found, torch.arange(24), seed)] += 1
    # 23 * 23 degrees of freedom, were the rows of a block independent; they lie in one window, so a little more than the 634 that are
    # exceeded once in a thousand.
    assert ((counts - trials / 24) ** 2 / (trials / 24)).sum() < 760


def test_labels_that_lie_together_are_spread_in_a_window() -> None:
    """Blocks sorted by label, one label each: in stretches of a window all of its labels are as frequent as their shares, by chi-square."""
    blocks, rows, window = 64, 500, 8
    found = places([rows] * blocks, Order("blocks", window))
    stream = numbers(found, torch.arange(blocks * rows)) // rows
    total, freedom = 0.0, 0
    for number in range(blocks // window):
        labels = stream[number * window * rows : (number + 1) * window * rows]
        present = torch.unique(labels)
        assert len(present) == window
        for stretch in labels.view(-1, 200):
            counts = torch.stack([(stretch == label).sum() for label in present]).double()
            total += float(((counts - 200 / window) ** 2 / (200 / window)).sum())
            freedom += window - 1
    assert abs(total - freedom) < 4 * (2 * freedom) ** 0.5  # chi-square: mean and variance


def test_neighbours_do_not_stay_neighbours() -> None:
    found = places([1000] * 20, Order("blocks", 5, 5))
    steps = numbers(found, torch.arange(20_000)).diff()
    assert (steps == 1).sum() < 20  # of 19,999; 4 are expected in windows of 5,000


def test_epochs_and_seeds_differ_in_blocks_and_in_rows() -> None:
    found = places([50] * 40, Order("blocks", 4, 4))
    first, second, other = (numbers(found, torch.arange(2000) + 2000 * epoch, seed) for epoch, seed in ((0, 0), (1, 0), (0, 1)))
    for one, two in ((first, second), (first, other), (first, torch.arange(2000))):
        assert (one == two).sum() <= 12
        assert next(found.coming(0, 0)) != next(found.coming(2000, 0)) != next(found.coming(0, 1))


def test_windows_say_what_is_read_next() -> None:
    found = places([5, 0, 7, 3, 6, 9], Order("blocks", 2, 2))
    stream, coming, at = found.at(torch.arange(3 * found.length), 3)[0].tolist(), found.coming(0, 3), 0
    for _ in range(7):
        window = next(coming)
        rows = sum(found.lengths[window].tolist())
        assert set(stream[at : at + rows]) == set(window)
        for inside in (at, at + rows // 2, at + rows - 1):
            assert next(found.coming(inside, 3)) == window
        at += rows
    assert at > 2 * found.length


def test_a_run_keeps_its_order() -> None:
    assert Order.from_dict(Order("blocks", 12, 12).to_dict()) == Order("blocks", 12, 12)


@given(layouts, orders, st.integers(0, 99), st.lists(st.booleans(), min_size=12, max_size=12))
def test_blocks_of_a_shard_are_read_while_it_is_there(lengths: list[int], order: Order, seed: int, same: list[bool]) -> None:
    """Every row once, and of what is mixed at a time all before the next; whatever blocks share a shard."""
    units = np.cumsum([0, *(not one for one in same[: len(lengths) - 1])])
    found = places(lengths, order, units.tolist())
    assert sorted(numbers(found, torch.arange(found.length), seed).tolist()) == list(range(found.length))
    blocks, at = found.at(torch.arange(found.length), seed)[0].tolist(), 0
    coming = found.coming(0, seed)
    groups = []
    while at < found.length:
        groups.append(set(next(coming)))
        at += sum(lengths[block] for block in groups[-1])
    assert at == found.length
    if order.kind == "blocks":
        for group in groups:
            assert len({units[block] for block in group}) <= order.shards
        turn = {block: number for number, group in enumerate(groups) for block in group}
        windows = [turn[block] for block in blocks]
        # A window may hold the last blocks of one group and the first of the next, so a row is never behind one of the group after that.
        assert all(max(windows[:place], default=0) <= own + 1 + order.window for place, own in enumerate(windows))


def trained(rows: list[int], sizes: list[int], *, remote: bool = True, form: str = "webdataset", same: bool = False) -> Rows:
    """Blocks of so many rows and bytes; all in one object each, or in pairs of one object."""

    class Sized(Pictures):
        @property
        def blocks(self) -> tuple[Block, ...]:
            path = None if remote else Path("/data")
            objects = [Object(f"{number // 2 if same else number}", size, "1", path) for number, size in enumerate(sizes)]
            return tuple(Block(count, (one,)) for count, one in zip(rows, objects, strict=True))

    records = Sized(rows)
    records.form = form
    return Rows(records, starts(rows), np.empty(0, np.int32))


@pytest.mark.parametrize(
    ("rows", "sizes", "cache", "expected"),
    [
        ([100], [10**12], 1, Order()),  # a single block is on the machine or not
        ([10] * 9, [100] * 9, 900, Order()),
        ([10] * 9, [100] * 9, 899, Order("blocks", 2, 2)),
        ([10] * 90, [100] * 90, 3000, Order("blocks", 10, 10)),
        ([10] * 90, [100] * 88 + [600] * 2, 5000, Order("blocks", 6, 6)),  # the large ones might come together
        ([MOST // 2 + 1] * 8, [1] * 8, 8, Order("blocks", 2, 8)),
        ([MOST // 8 + 1] * 64, [1] * 64, 64, Order("blocks", 7, 64)),
    ],
)
def test_what_is_mixed_and_the_next_fit_into_the_cache(rows: list[int], sizes: list[int], cache: int, expected: Order) -> None:
    assert chosen(trained(rows, sizes), cache, "s3://bucket/data") == expected


def test_only_what_is_fetched_needs_a_cache() -> None:
    assert chosen(trained([10] * 9, [10**9] * 9, remote=False), 1, "file:///data") == Order()


def test_blocks_that_are_decoded_whole_are_mixed_a_few_at_a_time() -> None:
    """Else each row of a batch would decode a row group of its own."""
    group = MEMORY // 12
    assert chosen(trained([100] * 12, [group] * 12, remote=False, form="parquet"), 1, "file:///data") == Order()
    assert chosen(trained([100] * 13, [group] * 13, remote=False, form="parquet"), 1, "file:///data") == Order("blocks", 4, 13)
    fetched = trained([100] * 20, [2 * group] * 20, form="parquet", same=True)  # ten files of two row groups
    assert chosen(fetched, 40 * group, "s3://b") == Order("blocks", 4, 10)  # all fits into the cache
    assert chosen(fetched, 19 * group, "s3://b") == Order("blocks", 4, 3)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("files", "expected"), [(6, Order()), (10, Order("blocks", 4, 10))])
def test_a_file_of_many_row_groups_is_mixed_alike_wherever_it_lies(files: int, expected: Order, remote: bool) -> None:
    """Else a folder's row groups would each be taken for as large as their file, and hardly be mixed."""
    group = MEMORY // 12
    rows = trained([100] * (2 * files), [2 * group] * (2 * files), remote=remote, form="parquet", same=True)
    assert chosen(rows, 40 * group, "file:///data") == expected


def test_an_order_that_counted_each_row_group_as_a_shard_stays_what_it_was() -> None:
    """Of a file on this machine, by a run that goes on: what it has yet to see follows from what its checkpoint keeps."""
    lengths, kept = np.array([5, 0, 7, 3, 6, 9]), Order("blocks", 2, 6)
    before, now = Places(kept, lengths, np.arange(6)), Places(kept, lengths, np.array([0, 0, 0, 1, 1, 2]))
    positions = torch.arange(3 * before.length)
    assert np.array_equal(before.numbers(positions, 5), now.numbers(positions, 5))


def test_a_cache_for_less_than_two_shards_is_refused() -> None:
    with pytest.raises(JobError) as caught:
        chosen(trained([10] * 4, [10**9] * 4), 2 * 10**9, "s3://bucket/data")
    assert caught.value.line() == (
        "GTJ0114 data.cache is too small for this data (s3://bucket/data): two shards take 2000.0 MB, and of 2000.0 MB a third is for "
        "those that are being read. raise data.cache to 6Gi or more, or write the data in smaller shards"
    )
