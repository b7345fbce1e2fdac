"""What a rank is told to expect is what it is then asked for, whatever the phases; and the share of the time that data was waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from tests.objectives.test_batches import CPU, Alone, Positions, never
from trainjobs.data.encoded import Encoded
from trainjobs.noise import Noise
from trainjobs.objectives.batches import Batches
from trainjobs.objectives.phase import At, Phase, Rollout
from trainjobs.plan.batch import Cut
from trainjobs.state import State
from trainjobs.world import World

DEPTH = 5


class Told(Positions):
    """Keeps what it was told to expect beside what it was asked for."""

    def __init__(self, depth: int = DEPTH) -> None:
        self.asked: list[list[int]] = []
        self.told: list[list[list[int]]] = []
        self._depth = depth

    def depth(self, positions: Tensor) -> int:
        return self._depth

    def expect(self, coming: Sequence[Tensor], seed: int) -> None:
        self.told.append([positions.tolist() for positions in coming])

    def tell(self, late: Callable[[float], None]) -> None: ...

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        self.asked.append(positions.tolist())
        return super().batch(positions, seed, noise)


def rollout() -> Rollout:
    return Rollout(lambda batch: dict(batch.data))


ROLLED = rollout()
PHASES = {
    "one": [Phase("train", "net", never)],
    "gan": [Phase("D", "d", never, repeat=2), Phase("G", "g", never, draws="nothing")],
    "lazy": [Phase("D", "d", never), Phase("D_r1", "d", never, every=3), Phase("G", "g", never)],
    "rollout": [
        Phase("policy", "p", never, draws=ROLLED, repeat=4, parts=2),
        Phase("value", "v", never, draws=ROLLED, repeat=2, parts=2),
        Phase("pretrain", "p", never, every=2),
    ],
}


def run(batches: Batches, phases: Sequence[Phase], state: State, steps: int, until: int) -> None:
    """What the loop does with them."""
    while state.step < until:
        at = At(state.step, state.samples, steps)
        for phase in phases:
            if state.step % phase.every:
                continue
            for turn in range(phase.repeat):
                list(batches.turn(phase, turn, state, at))
                state.samples += batches.cut.size if phase.advances else 0
        state.step += 1


def batches(source: Positions | Encoded, cut: Cut, rank: int = 0, **more: object) -> Batches:
    world = World(rank, 1, CPU) if cut.workers == 1 else Alone(rank, cut.workers, CPU)
    return Batches(source, 5, cut, world, {}, nullcontext(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("phases", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize(("cut", "rank"), [(Cut(1, 8, 1), 0), (Cut(1, 2, 4), 0), (Cut(2, 2, 2), 1), (Cut(4, 2, 1), 3)])
def test_what_is_told_is_what_is_asked_for(phases: list[Phase], cut: Cut, rank: int) -> None:
    source, steps = Told(), 7
    found = batches(source, cut, rank)
    found.check(phases)
    run(found, phases, State(), steps, steps)
    assert len(source.asked) == len(source.told) > DEPTH
    for number, told in enumerate(source.told):
        assert told == source.asked[number + 1 : number + 1 + DEPTH]  # nothing behind the last step


def test_a_run_that_went_back_is_told_anew() -> None:
    phases = PHASES["lazy"]
    source = Told()
    found = batches(source, Cut(1, 4, 2))
    found.check(phases)
    run(found, phases, State(), 9, 5)
    before = len(source.asked)
    run(found, phases, State(2, 1000), 9, 9)  # the same weights, other data
    for number, told in enumerate(source.told[before:], before):
        assert told == source.asked[number + 1 : number + 1 + DEPTH]
    assert source.asked[before] == [1000, 1001, 1002, 1003]


def test_of_phases_that_nobody_told_of_nothing_is_expected() -> None:
    source = Told()
    found = batches(source, Cut(1, 4, 2))
    run(found, PHASES["one"], State(), 3, 3)
    assert source.told == [[] for _ in source.asked]


def test_a_source_that_wants_nothing_is_not_told() -> None:
    source = Told(depth=0)
    found = batches(source, Cut(1, 4, 1))
    found.check(PHASES["one"])
    run(found, PHASES["one"], State(), 3, 3)
    assert (len(source.asked), source.told) == (3, [])


# --- waiting -------------------------------------------------------------------------------------------------------------------------


class Slow(Positions):
    """Each batch takes a quarter of a second of a clock that the test holds."""

    def __init__(self) -> None:
        self.time = 100.0

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        self.time += 0.25
        return super().batch(positions, seed, noise)


def test_the_share_of_the_time_that_data_was_waited_for() -> None:
    source = Slow()
    found = batches(source, Cut(1, 4, 2), clock=lambda: source.time)
    assert found.wait() == 0.0
    for number in range(3):
        for _ in found.turn(PHASES["one"][0], 0, State(number, 8 * number), At(number, 8 * number, 9)):
            source.time += 0.75  # the step computes
    assert found.wait() == pytest.approx(0.25)
    source.time += 1000.0  # an evaluation
    for _ in found.turn(PHASES["one"][0], 0, State(3, 24), At(3, 24, 9)):
        source.time += 0.0
    assert found.wait() == 1.0
    assert found.wait() == 0.0


def test_what_is_encoded_on_the_device_was_not_waited_for() -> None:
    source = Slow()

    def encode(rows: object) -> dict[str, Tensor]:
        source.time += 0.75
        return {"at": torch.zeros(1)}

    encoded = Encoded(source, encode, CPU)  # type: ignore[arg-type]
    found = batches(encoded, Cut(1, 4, 1), clock=lambda: source.time)
    (batch,) = [batch for batch, _ in found.turn(PHASES["one"][0], 0, State(), At(0, 0, 9))]
    assert batch.data.keys() == {"at"}
    assert found.wait() == pytest.approx(0.25)


def test_phases_without_data_wait_for_none() -> None:
    source = Slow()
    found = batches(source, Cut(1, 4, 1), clock=lambda: source.time)
    for _ in found.turn(Phase("G", "g", never, draws="nothing"), 0, State(), At(0, 0, 9)):
        source.time += 1.0
    assert found.wait() == 0.0
