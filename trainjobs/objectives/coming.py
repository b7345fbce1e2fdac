"""Which data a rank will be asked for: a step's phases draw one batch after the other from the stream, so what comes next is known.

Nothing depends on it but how early data is prepared: where a run goes back, or is asked for something else, it is found anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from trainjobs.objectives.phase import At, Phase
from trainjobs.plan.batch import Cut, largest_divisor


@dataclass
class Coming:
    """Of the steps of these phases, as this rank sees them."""

    phases: Sequence[Phase]
    cut: Cut
    rank: int
    _next: deque[Tensor] = field(default_factory=deque)
    _rest: Iterator[Tensor] = field(default_factory=lambda: iter(()))

    def behind(self, positions: Tensor, at: At, depth: int) -> list[Tensor]:
        """The positions (int64 [B] each) of the next `depth` micro-batches of data behind these, which are asked for now. `at` is where the
        step stands that asks."""
        if not self._next or not torch.equal(self._next[0], positions):  # it begins, or went back
            self._next, self._rest = deque(), self._from(at)
            for found in islice(self._rest, sum(phase.repeat * self.cut.size for phase in self.phases)):
                if torch.equal(found, positions):
                    self._next.append(found)
                    break
            else:
                return []
        self._next.popleft()
        self._next.extend(islice(self._rest, depth - len(self._next)))
        return list(self._next)

    def _from(self, at: At) -> Iterator[Tensor]:
        """The positions of every micro-batch of data from the beginning of a step on, to the end of the run."""
        samples = at.samples
        for step in range(at.step, at.steps):
            rolled, began = set[int](), samples
            for phase in self.phases:
                if step % phase.every:
                    continue
                if phase.rollout is not None:
                    if id(phase.rollout) not in rolled:
                        rolled.add(id(phase.rollout))
                        for number in range(phase.parts):
                            yield from (samples + rows for rows in dealt(self.cut, self.rank, phase, number))
                        samples += self.cut.size
                elif phase.draws == "step":
                    for _ in range(phase.repeat):
                        yield from drawn(self.cut, self.rank, samples - self.cut.size if samples > began else samples)
                elif phase.advances:
                    for _ in range(phase.repeat):
                        yield from drawn(self.cut, self.rank, samples)
                        samples += self.cut.size


def drawn(cut: Cut, rank: int, samples: int) -> Iterator[Tensor]:
    """The positions of each of a rank's micro-batches of a batch that begins at `samples`."""
    for accumulated in range(cut.accumulation):
        rows = cut.rows(rank, accumulated)
        yield torch.arange(samples + rows.start, samples + rows.stop)


def part(cut: Cut, phase: Phase) -> Cut:
    """How one part of a rollout's rows is cut."""
    size = cut.size // phase.parts
    micro = largest_divisor(size // cut.workers, cut.micro)
    return Cut(cut.workers, micro, size // (cut.workers * micro))


def dealt(cut: Cut, rank: int, phase: Phase, number: int) -> list[Tensor]:
    """Of each of a rank's micro-batches of part `number` of a rollout, the rows' numbers in the global batch."""
    each = part(cut, phase)
    return [positions + number * each.size for positions in drawn(each, rank, 0)]
