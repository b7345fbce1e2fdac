"""How a global batch is cut: every row to exactly one worker and turn, whatever the cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.api.training import Batch
from trainjobs.plan.batch import Cut, cut


@pytest.mark.parametrize(
    ("size", "micro", "workers", "expected"),
    [
        (64, None, 1, Cut(1, 64, 1)),
        (64, None, 4, Cut(4, 16, 1)),
        (64, 8, 1, Cut(1, 8, 8)),
        (64, 8, 4, Cut(4, 8, 2)),
        (8, 1, 2, Cut(2, 1, 4)),
        (1, None, 1, Cut(1, 1, 1)),
    ],
)
def test_cut(size: int, micro: int | None, workers: int, expected: Cut) -> None:
    assert cut(Batch.model_validate({"global": size, "micro": micro}), workers) == expected


@pytest.mark.parametrize(
    ("size", "micro", "workers", "most", "expected"),
    [
        (64, None, 8, 8, Cut(8, 8, 1)),
        (64, None, 1, 8, Cut(1, 8, 8)),
        (12, None, 2, 3, Cut(2, 3, 2)),  # a part of 6 in micro-batches of at most 4
        (14, None, 2, 7, Cut(2, 1, 7)),
        (64, 4, 2, 8, Cut(2, 4, 8)),
        (8, None, 2, 1, Cut(2, 4, 1)),  # torchrun starts more than the manifest says
    ],
)
def test_a_worker_of_a_small_group_holds_no_more_at_a_time(size: int, micro: int | None, workers: int, most: int, expected: Cut) -> None:
    assert cut(Batch.model_validate({"global": size, "micro": micro}), workers, most) == expected


@given(st.integers(1, 200), st.none() | st.integers(1, 20), st.integers(1, 30), st.integers(0, 30))
def test_the_sizes_of_an_elastic_group_are_those_that_come_out_even(size: int, micro: int | None, low: int, more: int) -> None:
    batch = Batch.model_validate({"global": size, "micro": micro})
    even = [workers for workers in range(low, low + more + 1) if size % (workers * (micro or 1)) == 0]
    assert list(batch.sizes(low, low + more)) == even
    for workers in even:
        chosen = cut(batch, workers, even[-1])
        assert (chosen.workers, chosen.size) == (workers, size)
        assert chosen.micro <= (micro or size // even[-1])


@given(st.integers(1, 200), st.none() | st.integers(1, 8), st.integers(1, 6), st.integers(0, 9), st.integers(1, 8))
def test_so_are_those_of_workers_with_several_gpus(size: int, micro: int | None, low: int, more: int, each: int) -> None:
    even = [workers for workers in range(low, low + more + 1) if size % (workers * each * (micro or 1)) == 0]
    assert list(Batch.model_validate({"global": size, "micro": micro}).sizes(low, low + more, each)) == even


def test_the_sizes_of_a_vast_range_are_found_at_once() -> None:
    assert Batch.model_validate({"global": 2**30}).sizes(1, 2**31 - 1) == tuple(2**power for power in range(31))


def test_an_uneven_batch_is_not_cut() -> None:
    with pytest.raises(AssertionError):
        cut(Batch.model_validate({"global": 10, "micro": 4}), 1)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8))
def test_every_row_is_seen_once(workers: int, micro: int, accumulation: int) -> None:
    chosen = cut(Batch.model_validate({"global": workers * micro * accumulation, "micro": micro}), workers)
    assert (chosen.workers, chosen.micro, chosen.accumulation) == (workers, micro, accumulation)
    seen = [row for turn in range(accumulation) for rank in range(workers) for row in chosen.rows(rank, turn)]
    assert seen == list(range(chosen.size))
