"""Where a run stands, and what else of it is small and saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass
class State:
    """All progress of a run. Order of data, noise, rates and averages follow from it, so resuming restores nothing else.

    `step` counts optimizer steps (of a GAN: of the generator), `samples` positions in the stream of training data.
    """

    step: int = 0
    samples: int = 0


@runtime_checkable
class Stateful(Protocol):
    """Something small that adapts, such as a probability or what is usual of a loss; every commit keeps it, under a name of its own.

    What is a tensor belongs into a buffer of a network instead. A checkpoint keeps rank 0's, so it must be the same on every rank.
    """

    def state(self) -> dict[str, Any]:
        """Plain JSON, small."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        ...
