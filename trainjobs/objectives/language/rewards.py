"""What completions are worth: functions of the user's own, three of ours, and trained models (judging.py), weighed and added.

A function is called on every rank for that rank's completions, as `function(prompts=[...], completions=[...], **columns)` with a list for
each other column of the data, and returns a number for each completion, or None to abstain. It has a time limit. A completion of which all
abstain has no reward.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainjobs.api.alignment import Worth
from trainjobs.api.errors import JobError, printable
from trainjobs.objectives.language.judging import Judge
from trainjobs.objectives.rewarding import Call, Function, imported

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Rewards:
    """`functions` are (name, weight, function); `where` the part of a manifest that names them. The loop adds `judges`, which are read when
    everything else is there (checkpointer/judges.py)."""

    functions: tuple[tuple[str, float, Function], ...]
    limit: float  # seconds
    where: str = "language.grpo"
    judges: tuple[tuple[float, Judge], ...] = ()  # (weight, model)

    @classmethod
    def of(cls, asked: Sequence[Worth], limit: float, where: str = "language.grpo") -> Rewards:
        """JobError GTJ0102 for a function that cannot be imported."""
        named = [one for one in asked if one.function is not None]
        return cls(tuple((str(one.function), one.weight, _function(one, f"{where}.rewards")) for one in named), limit, where)

    def __call__(
        self,
        prompts: list[str],
        completions: list[str],
        columns: Mapping[str, list[Any]],
        step: int,
        asked: Sequence[Any] = (),
        device: torch.device = CPU,
    ) -> list[float | None]:
        """The sum for each completion; None where every function abstains. `asked` are the prompts as models get them, texts or messages,
        on the `device` where these are. JobError GTJ0221."""
        total: list[float | None] = [None] * len(completions)
        for name, weight, function in self.functions:
            call = Call(name, function, self.limit, f"{self.where}.rewards", "completion", lambda at: _shown(prompts[at], completions[at]))
            given = {"prompts": prompts, "completions": completions, **columns}
            for at, value in enumerate(call(given, len(completions), step)):
                if value is not None:
                    total[at] = (total[at] or 0.0) + weight * value
        for weight, judge in self.judges:
            for at, value in enumerate(judge(asked, completions, step, device)):
                total[at] = (total[at] or 0.0) + weight * value
        return total

    def all_abstained(self, step: int, count: int) -> JobError:
        """GTJ0221: nothing can be learned of the step."""
        names, how = ", ".join(name for name, _, _ in self.functions), "return a number for some of them"
        why = f"{'it' if len(self.functions) == 1 else 'they'} abstained of all {count} completions of the step"
        what = f"the reward functions of {self.where}.rewards failed at step {step + 1}"
        return JobError("GTJ0221", what, where=names, why=why, how=how)


def _function(asked: Worth, where: str) -> Function:
    if asked.function == "length":
        target = asked.target or 1
        return lambda prompts, completions, **columns: [-abs(len(text) - target) / target for text in completions]
    if asked.function == "regex":
        pattern = re.compile(asked.pattern or "")
        return lambda prompts, completions, **columns: [float(pattern.search(text) is not None) for text in completions]
    if asked.function == "match":
        return lambda prompts, completions, **columns: _matched(completions, columns, asked.column or "")
    assert asked.function is not None
    return imported(asked.function, where)


def _matched(completions: list[str], columns: Mapping[str, list[Any]], column: str) -> list[float]:
    if column not in columns:
        raise KeyError(f"the data has no column {column}: it has {', '.join(columns) or 'none but the prompt'}")
    return [float(text.strip() == str(wanted).strip()) for text, wanted in zip(completions, columns[column], strict=True)]


def _shown(prompt: str, completion: str) -> str:
    return f"prompt {printable(repr(prompt[:200]))}, completion {printable(repr(completion[:200]))}"
