"""Scores do not depend on how their samples are dealt to the ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.evaluate.evaluation import chosen, drawn, evaluation, live
from trainjobs.evaluate.heldout import Heldout
from trainjobs.evaluate.score import dealt, joined
from trainjobs.evaluate.setting import Setting
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Batch, Samples, over
from trainjobs.world import World

SPEC = Spec.model_validate(
    {
        "vae": {},
        "data": {"source": "builtin:digits"},
        "training": {"steps": 1},
        "evaluation": {"samples": 7},
        "compute": {"gpusPerWorker": 0},
    }
)
CPU = torch.device("cpu")


@given(st.integers(0, 70), st.integers(1, 9), st.integers(1, 5))
def test_every_row_is_one_ranks_and_all_make_as_many_turns(total: int, micro: int, size: int) -> None:
    ranks = [list(dealt(total, micro, rank, size)) for rank in range(size)]
    assert len({len(turns) for turns in ranks}) == 1
    assert sorted(row for turns in ranks for turn in turns if turn.counts for row in turn.rows.tolist()) == list(range(total))
    assert all(1 <= len(turn.rows) <= micro for turns in ranks for turn in turns)
    # Put together turn by turn and rank by rank they are in order.
    in_order = [turns[k].rows.tolist() for k in range(len(ranks[0])) for turns in ranks if turns[k].counts]
    assert [row for rows in in_order for row in rows] == list(range(total))


@dataclass(frozen=True)
class Gathered(World):
    """A rank whose neighbours have said already what they have."""

    others: tuple[Any, ...] = ()

    def gather(self, value: Any) -> list[Any]:
        return [*self.others, value]


class Values:
    """Held-out sample i is the number i, of which i + 1 count."""

    info = DataInfo("point", (2,), 10, 5)
    highest_stage = 3
    phases = ()

    def __init__(self) -> None:
        self.asked = 0

    def heldout_batch(self, rows: Tensor) -> dict[str, Tensor]:
        return {"point": rows.double()}

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        return {"label": rows % 3}

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        raise AssertionError

    def heldout(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        self.asked += 1
        values = batch.data["point"]
        return {"loss": ((values * (values + 1)).sum(), (values + 1).sum())}

    def sample(self, batch: Batch) -> Samples:
        return Samples(
            texts=tuple(f"{label} {z:.6f}" for label, z in zip(batch.data["label"].tolist(), batch.noise.normal("z").tolist(), strict=True))
        )


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_mean_is_over_what_counts_for_any_number_of_ranks_even_more_than_samples(size: int) -> None:
    said: list[Any] = []
    found: Mapping[str, float] = {}
    for rank in range(size):
        values = Values()
        score = Heldout(values.heldout)
        for rows, counts in dealt(5, 2, rank, size):
            if counts:
                score.add(Batch(values.heldout_batch(rows), Noise.of(0, 0, "heldout", rows), len(rows)), None)
        found = score.result(Gathered(rank, size, CPU, others=tuple(said)))
        said.append(score._sums)
    assert found["heldout/loss"] == pytest.approx(sum(i * (i + 1) for i in range(5)) / 15, rel=1e-12)


def test_a_rank_without_a_row_computes_along() -> None:
    """Else the others would wait for ever for its share of the weights, at stage 3."""
    values = Values()
    world = Gathered(7, 8, CPU, others=({"loss": (1.0, 2.0)},))
    object.__setattr__(world, "collect", lambda value: [])
    scores, samples = evaluation(Setting(SPEC, cast(Any, values), cast(Any, values), {}, world, 2), At())
    assert values.asked == 1
    assert scores == {"heldout/loss": 0.5}
    assert samples == Samples()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sample_n_is_the_same_on_any_number_of_ranks_and_drawn_for_its_own_condition(size: int) -> None:
    values: Any = Values()

    def share(rank: int) -> list[Samples]:
        return list(drawn(Setting(SPEC, values, values, {}, World(rank, size, CPU), 2), At(), 7, 0))

    shares = [share(rank) for rank in range(size)]
    texts = joined([turns[k] for k in range(4) for turns in shares if k < len(turns)]).texts
    alone = joined(list(drawn(Setting(SPEC, values, values, {}, World(0, 1, CPU), 7), At(), 7, 0))).texts
    assert texts == alone
    assert texts is not None
    assert [text[0] for text in texts] == ["0", "1", "2", "0", "1", "2", "0"]


def test_perplexity_is_of_the_mean() -> None:
    spec = Spec.model_validate(
        {
            "language": {},
            "data": {"source": "builtin:stdlib-text"},
            "training": {"steps": 1},
            "evaluation": {"metrics": ["loss", "perplexity"]},
        }
    )
    values: Any = Values()
    setting = Setting(spec, values, values, {}, World(0, 1, CPU), 2)
    scores, _ = evaluation(setting, At())
    assert scores["heldout/perplexity"] == pytest.approx(math.exp(scores["heldout/loss"]))
    beside = live(setting, At())
    assert beside == {f"{name}/live": value for name, value in scores.items()}, "the same scores, under names of their own"


def test_over_gives_sum_and_count() -> None:
    total, count = over(torch.tensor(2.5), 4)
    assert (total.item(), count.item()) == (10.0, 4.0)


def test_of_what_was_measured_that_which_was_asked_for() -> None:
    assert chosen({"heldout/loss": 2.0, "heldout/kl": 1.0}, {"loss"}) == {"heldout/loss": 2.0}
    assert chosen({"heldout/loss": 0.0}, {"perplexity"}) == {"heldout/perplexity": 1.0}
    assert chosen({"modes": 8.0}, {"loss"}) == {}


@pytest.mark.parametrize("name", ["heldout/divergence", "heldout/rewards/accuracy", "heldout/rewards/margin"])
def test_what_comes_with_the_heldout_loss_is_told_with_it(name: str) -> None:
    scores = {"heldout/loss": 2.0, name: 1.0}
    assert chosen(dict(scores), {"loss"}) == scores
    assert chosen(dict(scores), {"bleu"}) == {}
