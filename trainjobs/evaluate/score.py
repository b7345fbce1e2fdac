"""Scores over samples, real and generated, which the ranks share among themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World


class Score(Protocol):
    """What is measured of a model: each rank adds its share, micro-batch by micro-batch, and the result is over all of them, the same on
    every rank and, but for rounding, for any number of ranks.

    `heldout` real samples and `generated` ones are asked for, of those that there are. `add` gets either.
    """

    heldout: int
    generated: int

    def add(self, real: Batch | None, made: Samples | None) -> None: ...

    def result(self, world: World) -> Mapping[str, float]: ...


@runtime_checkable
class Alongside(Protocol):
    """A score whose passes are not those of the objective's held-out loss: a rank that has no rows left makes them by this."""

    def alongside(self, batch: Batch) -> None: ...


class Dealt(NamedTuple):
    """A rank's rows of a turn; not `counts`: there was none left, it computes along because the others need its weights."""

    rows: Tensor  # int64 [B] on the CPU
    counts: bool


def dealt(total: int, micro: int, rank: int, size: int) -> Iterator[Dealt]:
    """Rows 0..total-1, turn by turn: every rank makes as many turns, and each row is one rank's."""
    for start in range(0, total, micro * size):
        first = start + rank * micro
        rows = torch.arange(first, max(first, min(first + micro, total)))
        yield Dealt(rows, True) if len(rows) else Dealt(torch.zeros(1, dtype=torch.int64), False)


def joined(pieces: list[Samples]) -> Samples:
    """Samples one after another, as one; on the CPU."""
    return Samples(
        images=_cat([piece.images for piece in pieces if piece.images is not None]),
        points=_cat([piece.points for piece in pieces if piece.points is not None]),
        texts=tuple(text for piece in pieces for text in piece.texts or ()) if any(piece.texts is not None for piece in pieces) else None,
    )


def _cat(tensors: list[Tensor]) -> Tensor | None:
    return torch.cat([tensor.float().cpu() for tensor in tensors]) if tensors else None
