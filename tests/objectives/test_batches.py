"""What a phase trains on: rollouts dealt to the ranks, shares by weight, and what cannot be cut."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.data.source import DataInfo
from trainjobs.noise import Noise
from trainjobs.objectives.batches import Batches
from trainjobs.objectives.phase import At, Batch, Phase, Rollout, clocked
from trainjobs.plan.batch import Cut
from trainjobs.state import State
from trainjobs.world import World

CPU = torch.device("cpu")


class Positions:
    """A sample is the position it is at."""

    info = DataInfo("point", (2,), 1000, 0)

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        return {"at": positions.clone()}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        raise AssertionError


def never(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    raise AssertionError


@dataclass(frozen=True)
class Alone(World):
    """A rank that sees its own rows where it would gather all, and its own sum."""

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def sum(self, values: Any) -> list[float]:
        return list(values)


def batches(cut: Cut, rank: int = 0, modules: dict[str, nn.Module] | None = None) -> Batches:
    world = World(rank, 1, CPU) if cut.workers == 1 else Alone(rank, cut.workers, CPU)
    return Batches(Positions(), 5, cut, world, modules or {}, nullcontext())


def seen(found: Batches, phase: Phase, turn: int, state: State) -> list[int]:
    return [n for batch, _ in found.turn(phase, turn, state, At(2, 32, 9)) for n in batch.data["at"].tolist()]


@pytest.mark.parametrize(("workers", "micro"), [(1, 4), (2, 4), (2, 1), (4, 2)])
def test_parts_of_a_rollout_are_blocks_of_the_global_batch_for_any_number_of_ranks(workers: int, micro: int) -> None:
    made: list[int] = []

    def make(batch: Batch) -> dict[str, Tensor]:
        made.extend(batch.data["at"].tolist())
        return dict(batch.data)

    phase = Phase("policy", "net", never, draws=Rollout(make), repeat=4, parts=2)
    cut = Cut(workers, micro, 16 // (workers * micro))
    found = [batches(cut, rank) for rank in range(workers)]
    states = [State(2, 32) for _ in range(workers)]
    turns = [sorted(n for own, state in zip(found, states, strict=True) for n in seen(own, phase, turn, state)) for turn in range(4)]
    first, second = list(range(32, 40)), list(range(40, 48))
    assert turns == [first, second, first, second]
    assert sorted(made) == first + second  # once, and every row by one rank
    assert [state.samples for state in states] == [48] * workers


def test_rows_have_their_own_noise_in_each_turn_wherever_they_are() -> None:
    phase = Phase("policy", "net", never, draws=Rollout(lambda batch: dict(batch.data)), repeat=2, parts=1)

    def noises(cut: Cut) -> dict[int, float]:
        found: dict[int, float] = {}
        for rank in range(cut.workers):
            for batch, _ in batches(cut, rank).turn(phase, 1, State(2, 32), At(2, 32, 9)):
                found |= dict(zip(batch.data["at"].tolist(), batch.noise.uniform("u").tolist(), strict=True))
        return found

    assert noises(Cut(1, 8, 1)) == noises(Cut(2, 2, 2))


def test_a_rollout_is_made_in_eval_mode_and_once_a_step_for_all_its_phases() -> None:
    net, calls = nn.Linear(1, 1).train(), list[bool]()

    def make(batch: Batch) -> dict[str, Tensor]:
        calls.append(net.training)
        assert not torch.is_grad_enabled()
        return dict(batch.data)

    rollout = Rollout(make)
    policy, value = (Phase(name, "net", never, draws=rollout) for name in ("policy", "value"))
    found, state = batches(Cut(1, 8, 1), modules={"net": net}), State(2, 32)
    assert seen(found, policy, 0, state) == seen(found, value, 0, state) == list(range(32, 40))
    assert calls == [False]
    assert net.training
    again = [n for batch, _ in found.turn(policy, 0, state, At(3, 40, 9)) for n in batch.data["at"].tolist()]
    assert again == list(range(40, 48))


def test_shares_follow_what_is_weighed() -> None:
    """loss / parts, summed over ranks by their mean, is the mean over all units."""
    phase = Phase("train", "net", never, weigh=lambda batch: batch.data["at"].float().sum())
    parts = [divided_by for _, divided_by in batches(Cut(1, 2, 2)).turn(phase, 0, State(0, 0), At())]
    assert parts == pytest.approx([6 / 1, 6 / 5])
    alone = [divided_by for _, divided_by in batches(Cut(1, 1, 2)).turn(phase, 0, State(0, 0), At())]
    assert alone == [float("inf"), 1.0]  # the first sample weighs 0, and is computed all the same


def test_dropout_is_seeded_in_front_of_every_loss_also_where_all_micro_batches_are_read_first() -> None:
    def drawn(**more: Any) -> list[float]:
        turn = batches(Cut(1, 2, 3)).turn(Phase("train", "net", never, **more), 0, State(0, 0), At())
        return [torch.rand(1).item() for _ in turn]

    plain = drawn()
    assert len(set(plain)) == 3
    assert drawn(weigh=lambda batch: torch.tensor(1.0)) == plain


def test_a_step_with_nothing_to_learn_from_is_an_error_that_names_it() -> None:
    phase = Phase("train", "net", never, weigh=lambda batch: torch.tensor(0.0))
    with pytest.raises(JobError) as raised:
        list(batches(Cut(1, 2, 2)).turn(phase, 0, State(7, 0), At(7, 0, 9)))
    assert raised.value.code == "GTJ0214"
    assert "phase train has nothing to learn from at step 8" in raised.value.what


ROLLOUT = Rollout(lambda batch: {})


@pytest.mark.parametrize(
    ("phases", "code", "says"),
    [
        ([Phase("a", "net", never, parts=2)], "GTJ0214", "phase a has 2 parts, and draws no rollout"),
        ([Phase("a", "net", never, draws=ROLLOUT, parts=2, repeat=3)], "GTJ0214", "phase a repeats 3 times"),
        ([Phase("a", "net", never, draws=ROLLOUT, parts=3, repeat=3)], "GTJ0103", "8 does not divide by 3 parts and 2 processes"),
        (
            [Phase("a", "net", never, draws=ROLLOUT), Phase("b", "net", never, draws=ROLLOUT, parts=2, repeat=2)],
            "GTJ0214",
            "phase b repeats 2 times",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_before_the_first_step(phases: list[Phase], code: str, says: str) -> None:
    with pytest.raises(JobError) as raised:
        batches(Cut(2, 4, 1)).check(phases)
    assert raised.value.code == code
    assert says in raised.value.what


# --- phases that run now and then --------------------------------------------------------------------------------------------------------


def test_a_lazy_phase_takes_what_the_step_drew_last_and_reads_it_alike() -> None:
    """The same positions, the same randomness of augmentation, noise of its own."""
    read: list[tuple[list[int], int]] = []

    class Reading(Positions):
        def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
            read.append((positions.tolist(), noise.seed))
            return super().batch(positions, seed, noise)

    found = Batches(Reading(), 5, Cut(1, 4, 2), World(0, 1, CPU), {}, nullcontext())
    main, lazy = Phase("D", "net", never, repeat=2), Phase("D_r1", "net", never, every=3, draws="step")
    state, at = State(2, 32), At(2, 32, 9)
    for turn in range(2):
        list(found.turn(main, turn, state, at))
        state.samples += found.cut.size
    own = [batch for batch, _ in found.turn(lazy, 0, state, at)]
    assert [batch.data["at"].tolist() for batch in own] == [[40, 41, 42, 43], [44, 45, 46, 47]]
    assert [batch.noise.seed for batch in own] == [Noise.of(5, 2, "D_r1.0", torch.arange(1)).seed] * 2
    assert read[-2:] == read[2:4]
    assert state.samples == 48


def test_lazy_phases_beside_one_of_every_step_advance_nothing() -> None:
    """Samples seen are then as many in each step, whatever the intervals. A phase that draws alone goes on drawing."""
    lazy = Phase("penalty", "net", never, every=2)
    for others, draws in (
        ([Phase("D", "net", never)], "step"),
        ([Phase("policy", "net", never, draws=ROLLOUT)], "step"),
        ([Phase("G", "net", never, draws="nothing")], "data"),
        ([], "data"),
    ):
        assert clocked([*others, lazy])[-1].draws == draws
        assert list(clocked([*others, lazy])[:-1]) == others
    assert clocked([Phase("D", "net", never), Phase("G", "net", never, every=2, draws="nothing")])[1].draws == "nothing"


def test_a_lazy_phase_in_front_of_the_one_that_draws_takes_what_that_will_draw() -> None:
    lazy = Phase("first", "net", never, every=2, draws="step")
    assert seen(batches(Cut(1, 4, 1)), lazy, 0, State(2, 32)) == [32, 33, 34, 35]
