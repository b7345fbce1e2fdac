"""A model against its reference: which one's completion of a prompt is worth more.

Both complete the same prompts from the same random numbers, a row's own. So a model that is its reference still ties with itself
everywhere, whatever the ranks and micro-batches are, and what differs comes from weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from trainjobs.api.evaluation import LONGEST_SAMPLE
from trainjobs.api.job import Spec
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import Tokenizer
from trainjobs.objectives.language.completing import beside, joined, texts_of
from trainjobs.objectives.language.drawing import complete
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.phase import Batch

LIMIT = 60  # seconds that evaluation.rewards may take for a micro-batch


@dataclass(frozen=True)
class Contest:
    """`reference` is frozen; None: `model` without its adapters is. Completions have `length` tokens at most; a prompt that is longer than
    `room` leaves no place for them, and is not counted."""

    model: nn.Module
    reference: nn.Module | None
    tokenizer: Tokenizer
    rewards: Rewards
    temperature: float
    length: int
    room: int

    @classmethod
    def of(cls, spec: Spec, model: nn.Module, reference: nn.Module | None, tokenizer: Tokenizer) -> Contest | None:
        """None where there is nothing to compare by, or with. JobError GTJ0102 for a function that cannot be imported."""
        family, asked = spec.language, spec.evaluation.rewards
        assert family is not None
        own, context = family.rewarded, family.network.context_length
        functions = asked or (own.rewards if own else [])
        if not functions or (reference is None and not hasattr(model, "disable_adapter")):
            return None
        where = "evaluation" if asked else f"language.{family.method}"
        rewards = Rewards.of(functions, own.time_limit if own and not asked else LIMIT, where)
        half = context - context // 2
        length = min(own.max_completion if own else half, LONGEST_SAMPLE)
        room = context - (own.max_completion if own else half)
        return cls(model, reference, tokenizer, rewards, own.temperature if own else 1.0, length, room)

    def play(self, batch: Batch) -> tuple[float, int]:
        """(wins, a tie as half of one; how many prompts were completed and valued) of held-out rows: pairs of answers, or prompts.

        JobError GTJ0221."""
        prompt_BP, length_B, columns = prompts(batch.data)
        fits = (length_B <= self.room).tolist()
        short_B, width = length_B.clamp(max=self.room), min(prompt_BP.shape[1], self.room)
        uniform_BT = batch.noise.uniform("tokens", self.length)
        ours, theirs = (self._worth(way, prompt_BP[:, :width], short_B, uniform_BT, columns, batch.at.step) for way in (False, True))
        found = zip(ours, theirs, fits, strict=True)
        pairs = [(one, other) for one, other, counts in found if counts and one is not None and other is not None]
        return sum((one > other) + 0.5 * (one == other) for one, other in pairs), len(pairs)

    def _worth(
        self, as_it_began: bool, prompt_BP: Tensor, length_B: Tensor, uniform_BT: Tensor, columns: Mapping[str, list[Any]], step: int
    ) -> list[float | None]:
        own = self.model
        without: AbstractContextManager[Any] = nullcontext()
        if as_it_began and self.reference is None:
            without = own.disable_adapter()  # type: ignore[operator]
        elif as_it_began and self.reference is not None:
            own = self.reference
        with without:
            tokens_BT, count_B = complete(own, prompt_BP, length_B, uniform_BT, self.tokenizer.ends, self.temperature)
        tokens, _ = joined(prompt_BP, length_B, tokens_BT, count_B, self.tokenizer.end)
        said = texts_of(self.tokenizer, {"tokens": tokens, "prompt_length": length_B, "count": count_B})
        return self.rewards(*said, columns, step)


def prompts(data: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Mapping[str, list[Any]]]:
    """(prompts int64 [B, P], their lengths [B], other columns) of rows of data/preferences.py: those of prompts, or what the chosen of two
    answers has before what is learned of it."""
    if "prompt" in data:
        columns, _ = beside(data["columns"])  # messages are for models of rewards alone
        return data["prompt"], data["prompt_length"], columns
    tokens_BL, labels_BL = data["tokens"][:, 0], data["labels"][:, 0]
    return tokens_BL, (labels_BL != NOT_LEARNED).long().argmax(dim=1) + 1, {}
