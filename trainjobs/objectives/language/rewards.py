"""What completions are worth: functions of the user's own, and three of ours, weighed and added.

A function is called on every rank for that rank's completions, as `function(prompts=[...], completions=[...], **columns)` with a list for
each other column of the data, and returns a number for each completion, or None to abstain. It has a time limit.
"""

from __future__ import annotations

import importlib
import math
import re
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainjobs.api.alignment import RewardFunction
from trainjobs.api.errors import JobError, printable

Function = Callable[..., Any]
OURS = Path(__file__).resolve().parents[2]


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
            for at, value in enumerate(self._called(name, function, prompts, completions, columns, step)):
                total[at] += 0.0 if value is None else weight * value
        return total

    def _called(
        self, name: str, function: Function, prompts: list[str], completions: list[str], columns: Mapping[str, list[Any]], step: int
    ) -> list[float | None]:
        found: list[Any] = []

        def call() -> None:
            try:
                found.append(function(prompts=prompts, completions=completions, **columns))
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=call, name=f"reward {name}", daemon=True)  # which nobody waits for once its time is over
        thread.start()
        thread.join(self.limit)
        if not found:
            raise self._failed(
                name, step, prompts, completions, f"it took longer than {self.limit:g} s", f"mend it, or raise {self.where}.timeLimit"
            )
        (result,) = found
        if isinstance(result, Exception):
            raise self._failed(name, step, prompts, completions, _lines(result), "mend the function") from result
        try:
            values = [None if value is None else float(value) for value in result]
        except (TypeError, ValueError) as error:
            raise self._failed(
                name, step, prompts, completions, f"it returned {printable(repr(result)[:60])}", "return a list of numbers"
            ) from error
        if len(values) != len(completions):
            why = f"it returned {len(values)} numbers for {len(completions)} completions"
            raise self._failed(name, step, prompts, completions, why, "return one for each, or None to abstain")
        for at, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                raise self._failed(
                    name, step, prompts[at:], completions[at:], f"it returned {value}", "return a number, or None to abstain"
                )
        return values

    def _failed(self, name: str, step: int, prompts: Sequence[str], completions: Sequence[str], why: str, how: str) -> JobError:
        shown = f"prompt {printable(repr(prompts[0][:200]))}, completion {printable(repr(completions[0][:200]))}"
        what = f"a reward function of {self.where}.rewards failed at step {step + 1}"
        return JobError("GTJ0221", what, where=name, why=f"{why}; {shown}", how=how)


def _function(asked: RewardFunction, where: str) -> Function:
    if asked.function == "length":
        target = asked.target or 1
        return lambda prompts, completions, **columns: [-abs(len(text) - target) / target for text in completions]
    if asked.function == "regex":
        pattern = re.compile(asked.pattern or "")
        return lambda prompts, completions, **columns: [float(pattern.search(text) is not None) for text in completions]
    if asked.function == "match":
        return lambda prompts, completions, **columns: _matched(completions, columns, asked.column or "")
    module, _, name = asked.function.partition(":")
    try:
        found: Function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        how = 'give "package.module:function" of a module on PYTHONPATH'
        raise JobError("GTJ0102", f"{asked.function} cannot be imported", where=where, why=str(error), how=how) from error
    return found


def _matched(completions: list[str], columns: Mapping[str, list[Any]], column: str) -> list[float]:
    if column not in columns:
        raise KeyError(f"the data has no column {column}: it has {', '.join(columns) or 'none but the prompt'}")
    return [float(text.strip() == str(wanted).strip()) for text, wanted in zip(completions, columns[column], strict=True)]


def _lines(error: Exception) -> str:
    """What was raised, and where in lines that are not ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if OURS not in Path(frame.filename).resolve().parents]
    places = ", ".join(f"{frame.filename}:{frame.lineno} {frame.line}" for frame in frames[-3:])
    return f"{type(error).__name__}: {error}" + (f" ({places})" if places else "")
