"""What a phase trains on in one turn: this rank's part of the global batch, micro-batch by micro-batch.

Positions in the stream of data name the samples and their noise, so the batch is the same however it is cut. A rollout's rows are cut
into blocks of the global batch, and each block is dealt to the ranks, so they are the same on any number of ranks, too: a rank makes
just those rows that it will train on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.data.ahead import Expecting
from trainjobs.data.encoded import Encoded
from trainjobs.data.source import Counted, Source
from trainjobs.noise import Noise, mix
from trainjobs.objectives.coming import Coming, dealt, drawn, part
from trainjobs.objectives.phase import ROW, At, Batch, Phase, Rollout, Rows
from trainjobs.plan.batch import Cut
from trainjobs.state import State
from trainjobs.world import World

Turn = Iterator[tuple[Batch, float]]


@dataclass
class Batches:
    """`autocast` is entered to make rollouts, in which the `modules` are in eval mode; `whole` is what they get as Batch.whole. `clock`
    measures, in seconds. `late` is told, in words, that data is waited for."""

    source: Source
    seed: int
    cut: Cut
    world: World
    modules: Mapping[str, nn.Module]
    autocast: AbstractContextManager[Any]
    whole: Callable[[nn.Module], AbstractContextManager[nn.Module]] = nullcontext
    clock: Callable[[], float] = time.monotonic
    late: Callable[[str], None] | None = None
    _coming: Coming = field(init=False)
    _waited: float = 0.0
    _began: float | None = None
    _rolled: dict[int, tuple[Rollout, int, Rows]] = field(default_factory=dict)  # by identity: of which step, and this rank's rows
    _drew: str = ""  # which turn drew data last

    def __post_init__(self) -> None:
        self._coming = Coming((), self.cut, self.world.rank)
        source, late = self.source.source if isinstance(self.source, Encoded) else self.source, self.late
        if late is not None and isinstance(source, Expecting):
            source.tell(lambda seconds: late(f"waiting for data, {seconds:.0f} s"))

    def wait(self) -> float:
        """The share of the time that went to waiting for data, since the first turn after it was last asked; 0 to 1, of this rank. What
        lies between, evaluations and saves, is not time of steps."""
        took = 0.0 if self._began is None else self.clock() - self._began
        share = min(1.0, self._waited / took) if took > 0 else 0.0
        self._waited, self._began = 0.0, None
        return share

    def check(self, phases: Sequence[Phase]) -> Batches:
        """Itself; these are the phases of every step, by which it is known what comes next. GTJ0214 for phases that cannot be cut so,
        GTJ0103 where the numbers do not come out even."""
        self._coming = Coming(tuple(phases), self.cut, self.world.rank)
        parts: dict[int, Phase] = {}
        for phase in phases:
            rollout = phase.rollout
            if rollout is None:
                if phase.parts != 1:
                    raise JobError("GTJ0214", f"phase {phase.name} has {phase.parts} parts, and draws no rollout", how="take parts out")
                continue
            other = parts.setdefault(id(rollout), phase)
            if phase.repeat % phase.parts or other.parts != phase.parts:
                why = f"its rows are cut into {other.parts} parts by phase {other.name}, and into {phase.parts} by {phase.name}"
                how = "give all phases of a rollout as many parts, and repeat as a multiple of them"
                raise JobError("GTJ0214", f"phase {phase.name} repeats {phase.repeat} times", why=why, how=how)
            if self.cut.size % (phase.parts * self.world.size):
                what = f"a global batch of {self.cut.size} does not divide by {phase.parts} parts and {self.world.size} processes"
                why = f"each process takes an equal share of each part of phase {phase.name}"
                unit = phase.parts * self.world.size
                how = f"nearest size that does: {-(-self.cut.size // unit) * unit}"
                raise JobError("GTJ0103", what, where="training.batch.global", why=why, how=how)
        return self

    def turn(self, phase: Phase, number: int, state: State, at: At) -> Turn:
        """The micro-batches of turn `number` of a phase, and by what the mean over each is divided before they are added up: how many
        there are, or how much of what the phase weighs is everywhere, in units of this rank's share of this one.

        A rollout is made when it is first asked for in a step, from the next batch of data.
        """
        if self._began is None:
            self._began = self.clock()
        if phase.rollout is not None:
            cut = part(self.cut, phase)
            found = self._of_rollout(phase, phase.rollout, number, state, at)
        else:
            cut = self.cut
            found = self._drawn(phase, number, state, at)
        if phase.weigh is None:
            for batch, seed in found:
                self._dropout(seed)
                yield batch, float(cut.accumulation)
            return
        batches: Iterable[tuple[Batch, int]]
        if phase.weigh == "units":
            batches, (weights, total) = found, self._units(self._start(phase, state, at))
        else:
            batches = list(found)
            weights = [float(phase.weigh(batch)) for batch, _ in batches]
            (total,) = self.world.sum([math.fsum(weights)])
        if total == 0:
            why = "no micro-batch of this step has anything that its loss is a mean over"
            how = "look at the data: every label may be masked, every answer empty"
            raise JobError("GTJ0214", f"phase {phase.name} has nothing to learn from at step {at.step + 1}", why=why, how=how)
        for (batch, seed), weight in zip(batches, weights, strict=True):
            self._dropout(seed)
            yield batch, total / (weight * self.world.size) if weight else math.inf

    def _units(self, start: int) -> tuple[list[float], float]:
        """(of each of this rank's micro-batches of the batch that begins at `start`, of the whole batch): the source knows them of every
        sample, so nothing has to be exchanged."""
        source = self.source.source if isinstance(self.source, Encoded) else self.source
        assert isinstance(source, Counted), "a phase weighs by units only what knows them"
        counts = source.units(torch.arange(start, start + self.cut.size), self.seed)
        mine = [float(counts[positions - start].sum()) for positions in drawn(self.cut, self.world.rank, start)]
        return mine, float(counts.sum())

    def _start(self, phase: Phase, state: State, at: At) -> int:
        """Where the batch of data of a turn begins: that of an earlier phase of the step, or the next."""
        again = phase.draws == "step" and state.samples > at.samples
        return state.samples - self.cut.size if again else state.samples

    def _drawn(self, phase: Phase, number: int, state: State, at: At) -> Iterator[tuple[Batch, int]]:
        name, start = f"{phase.name}.{number}", self._start(phase, state, at)
        again = start != state.samples  # with the randomness that it was read with
        if not again and phase.advances:
            self._drew = name
        for positions in drawn(self.cut, self.world.rank, start):
            if phase.draws != "step":
                yield self._batch(name, positions, at, None if phase.advances else {})
                continue
            read = Noise.of(self.seed, at.step, self._drew if again else name, positions.to(self.world.device))
            yield self._batch(name, positions, at, self._data(positions, read, at))

    def _batch(self, name: str, positions: Tensor, at: At, data: Rows | None) -> tuple[Batch, int]:
        """With the data at these positions (on the CPU), unless there are others; and the seed of its dropout."""
        noise = Noise.of(self.seed, at.step, name, positions.to(self.world.device))
        if data is None:
            data = self._data(positions, noise, at)
        return Batch(data, noise, len(positions), at), mix(noise.seed, int(positions.numpy()[0]))

    def _data(self, positions: Tensor, noise: Noise, at: At) -> Rows:
        """The stopwatch runs for what is waited for, not for what the device computes of it."""
        encoded = self.source if isinstance(self.source, Encoded) else None
        source = encoded.source if encoded else self.source
        began = self.clock()
        rows = source.batch(positions, self.seed, noise)
        self._waited += self.clock() - began
        if isinstance(source, Expecting) and (depth := source.depth(positions)):  # now, as its threads take this one's time as well
            source.expect(self._coming.behind(positions, at, depth), self.seed)
        return encoded.encoded(rows) if encoded else rows

    def _dropout(self, seed: int) -> None:
        """Dropout draws from torch's own generator: seeded in front of every loss, it needs no saving either."""
        torch.default_generator.manual_seed(seed)
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    # --- rollouts --------------------------------------------------------------------------------------------------------------------

    def _of_rollout(self, phase: Phase, rollout: Rollout, number: int, state: State, at: At) -> Iterator[tuple[Batch, int]]:
        if id(rollout) not in self._rolled or self._rolled[id(rollout)][1] != at.step:
            self._rolled[id(rollout)] = (rollout, at.step, self._made(phase, rollout, state, at))
        _, _, rows = self._rolled[id(rollout)]
        start = state.samples - self.cut.size  # where the rollout's batch began
        which = number % phase.parts
        first = which * self.cut.size // (phase.parts * self.world.size)  # this rank's rows of a part lie together
        for numbers in dealt(self.cut, self.world.rank, phase, which):
            data = {name: value[first : first + len(numbers)] for name, value in rows.items()}
            yield self._batch(f"{phase.name}.{number}", start + numbers, at, data)
            first += len(numbers)

    def _made(self, phase: Phase, rollout: Rollout, state: State, at: At) -> Rows:
        numbers = [number for which in range(phase.parts) for number in dealt(self.cut, self.world.rank, phase, which)]
        mine = torch.cat(numbers)
        order = torch.cat(self.world.gather(mine)).argsort()

        def everywhere(rows: Tensor) -> Tensor:
            return torch.cat(self.world.gather(rows.cpu()))[order].to(rows.device)

        def drawn_once() -> dict[str, Tensor]:
            found = [self._batch("rollout", state.samples + number, at, None)[0] for number in numbers]
            made = [rollout.make(replace(batch, whole=self.whole)) for batch in found]
            state.samples += self.cut.size
            rows = {name: torch.cat([some[name] for some in made]) for name in made[0]}
            return {**rows, ROW: mine.to(self.world.device)}

        self._drew = "rollout"
        with inference(self.modules, self.autocast):
            whole = drawn_once() if rollout.judge is None else chosen(rollout, drawn_once, everywhere)
            return {**whole, **rollout.finish(whole, everywhere)}


def chosen(rollout: Rollout, drawn_once: Callable[[], dict[str, Tensor]], everywhere: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """This rank's part of a batch of rows that are worth training on, as far as so many tries find them: the first ones, in their order.
    Rows go to other ranks for it."""
    assert rollout.judge is not None
    good: list[dict[str, Tensor]] = []
    rest: list[dict[str, Tensor]] = []
    found, mine = 0, torch.zeros(0, dtype=torch.int64)
    for _ in range(rollout.tries):
        rows = drawn_once()
        told, worth_N = rollout.judge(rows, everywhere)
        mine = rows.pop(ROW)
        every = {name: everywhere(value) for name, value in {**rows, **told}.items()}
        for kept, where_N in ((good, worth_N), (rest, ~worth_N)):
            kept.append({name: value[where_N] for name, value in {**every, "chosen": worth_N}.items()})
        found += int(worth_N.sum())
        if found >= len(worth_N):
            break
    whole = {name: torch.cat([rows[name] for rows in (*good, *rest)]) for name in good[0]}
    whole["tries"] = torch.full_like(whole["chosen"], len(good), dtype=torch.float32)
    return {**{name: value[mine] for name, value in whole.items()}, ROW: mine}


@contextmanager
def inference(modules: Mapping[str, nn.Module], autocast: AbstractContextManager[Any]) -> Iterator[None]:
    """Eval mode, without gradients, in the run's precision; each network is put back into the mode that it was in."""
    was_training = {name: module.training for name, module in modules.items()}
    for module in modules.values():
        module.eval()
    with torch.no_grad(), autocast:
        yield
    for name, module in modules.items():
        module.train(was_training[name])
