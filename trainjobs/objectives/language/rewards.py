"""What completions are worth: functions of the user's own, and three of ours, weighed and added.

A function is called on every rank for that rank's completions, as `function(prompts=[...], completions=[...], **columns)` with a list for
each other column of the data, and returns a number for each completion, or None to abstain. It has a time limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainjobs.api.alignment import RewardFunction
from trainjobs.api.errors import printable
from trainjobs.objectives.rewarding import Call, Function, imported


@dataclass(frozen=True)
class Rewards:
    """`functions` are (name, weight, function); `where` the part of a manifest that names them."""

    functions: tuple[tuple[str, float, Function], ...]
    limit: float  # seconds
    where: str = "language.grpo"

    @classmethod
    def of(cls, asked: Sequence[RewardFunction], limit: float, where: str = "language.grpo") -> Rewards:
        """JobError GTJ0102 for a function that cannot be imported."""
        return cls(tuple((one.function, one.weight, _function(one, f"{where}.rewards")) for one in asked), limit, where)

    def __call__(self, prompts: list[str], completions: list[str], columns: Mapping[str, list[Any]], step: int) -> list[float]:
        """The sum for each completion; 0 where every function abstains. JobError GTJ0221."""
        total = [0.0] * len(completions)
        for name, weight, function in self.functions:
            call = Call(name, function, self.limit, f"{self.where}.rewards", "completion", lambda at: _shown(prompts[at], completions[at]))
            given = {"prompts": prompts, "completions": completions, **columns}
            for at, value in enumerate(call(given, len(completions), step)):
                total[at] += 0.0 if value is None else weight * value
        return total


def _function(asked: RewardFunction, where: str) -> Function:
    if asked.function == "length":
        target = asked.target or 1
        return lambda prompts, completions, **columns: [-abs(len(text) - target) / target for text in completions]
    if asked.function == "regex":
        pattern = re.compile(asked.pattern or "")
        return lambda prompts, completions, **columns: [float(pattern.search(text) is not None) for text in completions]
    if asked.function == "match":
        return lambda prompts, completions, **columns: _matched(completions, columns, asked.column or "")
    return imported(asked.function, where)


def _matched(completions: list[str], columns: Mapping[str, list[Any]], column: str) -> list[float]:
    if column not in columns:
        raise KeyError(f"the data has no column {column}: it has {', '.join(columns) or 'none but the prompt'}")
    return [float(text.strip() == str(wanted).strip()) for text, wanted in zip(completions, columns[column], strict=True)]


def _shown(prompt: str, completion: str) -> str:
    return f"prompt {printable(repr(prompt[:200]))}, completion {printable(repr(completion[:200]))}"
