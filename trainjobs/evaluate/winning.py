"""How often a model's completions of held-out prompts are worth more than its reference's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

WIN_RATE = "win_rate"  # of evaluation.metrics
PROMPTS = 64  # at an evaluation: each takes twice as many passes as its completion has tokens


class Match(Protocol):
    def play(self, batch: Batch) -> tuple[float, int]: ...


@runtime_checkable
class Contending(Protocol):
    """An objective whose model has a reference; no contest where nothing says what a completion is worth."""

    @property
    def contest(self) -> Match | None: ...


@dataclass
class Won:
    """Sums of wins, each of one prompt, so the result is the same however prompts lie on ranks."""

    contest: Match
    heldout: int = PROMPTS
    generated: int = 0
    _wins: float = 0.0
    _count: int = 0

    def add(self, real: Batch | None, made: Samples | None) -> None:
        if real is None:
            return
        wins, count = self.contest.play(real)
        self._wins, self._count = self._wins + wins, self._count + count

    def alongside(self, batch: Batch) -> None:
        """For a rank that has no rows of its own left: as many passes as the others make."""
        self.contest.play(batch)

    def result(self, world: World) -> Mapping[str, float]:
        everywhere = world.gather((self._wins, self._count))
        count = sum(number for _, number in everywhere)
        return {f"heldout/{WIN_RATE}": sum(wins for wins, _ in everywhere) / count} if count else {}
