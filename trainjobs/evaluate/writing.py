"""What a model writes for held-out samples, against what was to be written: BLEU and ROUGE-L."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Protocol, runtime_checkable

from trainjobs.evaluate.bleu import Counts, bleu, counts
from trainjobs.evaluate.rouge import rouge_l
from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

WRITTEN = 64  # texts at an evaluation: each takes as many passes as it has tokens
WORDS = ("bleu", "rouge_l")  # of evaluation.metrics


@runtime_checkable
class Writing(Protocol):
    """An objective whose model writes what the data has as well."""

    def hypotheses(self, batch: Batch) -> Sequence[str]: ...

    def references(self, batch: Batch) -> Sequence[str]: ...


@dataclass
class Written:
    """Sums of counts and of scores, so the result is the same however texts lie on ranks."""

    objective: Writing
    heldout: int = WRITTEN
    generated: int = 0
    _counts: Counts = field(default_factory=Counts)
    _rouge: list[float] = field(default_factory=list)

    def add(self, real: Batch | None, made: Samples | None) -> None:
        if real is None:
            return
        for text, reference in zip(self.objective.hypotheses(real), self.objective.references(real), strict=True):
            self._counts += counts(text, reference)
            self._rouge.append(rouge_l(text, reference))

    def alongside(self, batch: Batch) -> None:
        """For a rank that has no rows of its own left: as many passes as the others make."""
        self.objective.hypotheses(batch)

    def result(self, world: World) -> Mapping[str, float]:
        everywhere = world.gather((self._counts, sum(self._rouge), len(self._rouge)))
        number = sum(count for _, _, count in everywhere)
        if not number:
            return {}
        whole = reduce(add, (one for one, _, _ in everywhere))
        return {"heldout/bleu": bleu(whole), "heldout/rouge_l": sum(total for _, total, _ in everywhere) / number}
