"""How a global batch is cut: every row to exactly one worker and turn, whatever the cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.api.job import Batch
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


def test_an_uneven_batch_is_not_cut() -> None:
    with pytest.raises(AssertionError):
        cut(Batch.model_validate({"global": 10, "micro": 4}), 1)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8))
def test_every_row_is_seen_once(workers: int, micro: int, accumulation: int) -> None:
    chosen = cut(Batch.model_validate({"global": workers * micro * accumulation, "micro": micro}), workers)
    assert (chosen.workers, chosen.micro, chosen.accumulation) == (workers, micro, accumulation)
    seen = [row for turn in range(accumulation) for rank in range(workers) for row in chosen.rows(rank, turn)]
    assert seen == list(range(chosen.size))
