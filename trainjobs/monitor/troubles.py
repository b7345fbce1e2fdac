"""What is not well with a run that goes on: each is told once, and again when it was over and comes back (GTJ0220)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from trainjobs.api.errors import JobError
from trainjobs.objectives.phase import Adaptive

CODE = "GTJ0220"


@dataclass
class Troubles:
    """`told` are names of what is so and was told: state. `where` is the part of a manifest that it is about."""

    where: str
    told: list[str] = field(default_factory=list)
    _news: list[JobError] = field(default_factory=list)

    def say(self, name: str, so: bool, what: str, why: str, how: str) -> None:
        if so and name not in self.told:
            self._news.append(JobError(CODE, what, where=self.where, why=why, how=how))
            self.told.append(name)
        elif not so and name in self.told:
            self.told.remove(name)

    def news(self) -> Iterator[JobError]:
        """What has not been said yet."""
        while self._news:
            yield self._news.pop(0)


class Watches(Adaptive, Protocol):
    """Looks at what is measured; the same on every rank."""

    def evaluated(self, step: int, scores: Mapping[str, float], late: Mapping[str, float]) -> None:
        """After every evaluation; `late` are figures of the one before that were computed beside training."""
        ...

    def news(self) -> Iterator[JobError]:
        """What has not been said yet."""
        ...

    @property
    def standing(self) -> bool:
        """Whether something that was told is so still."""
        ...

    @property
    def collapse(self) -> JobError | None:
        """What a run may end with, as long as it lasts."""
        ...
