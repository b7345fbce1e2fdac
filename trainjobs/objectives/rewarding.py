"""Calling a function of the user's that says what something is worth: within a time limit, and with its mistakes told as such (GTJ0221)."""

from __future__ import annotations

import importlib
import math
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError, printable

Function = Callable[..., Any]
OURS = Path(__file__).resolve().parents[1]


def imported(name: str, where: str) -> Function:
    """The function "package.module:function". JobError GTJ0102, naming the field `where`."""
    module, _, attribute = name.partition(":")
    try:
        found: Function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        how = 'give "package.module:function" of a module on PYTHONPATH'
        raise JobError("GTJ0102", f"{name} cannot be imported", where=where, why=str(error), how=how) from error
    return found


@dataclass(frozen=True)
class Call:
    """`limit` is in seconds, `where` the field of a manifest that names the function, beside timeLimit, `unit` what is valued; `shown`
    says of one of them what people look for in an error."""

    name: str
    function: Function
    limit: float
    where: str
    unit: str
    shown: Callable[[int], str]

    def __call__(self, given: Mapping[str, Any], count: int, step: int) -> list[float | None]:
        """A number, or None, for each of `count` things. JobError GTJ0221."""
        found: list[Any] = []

        def call() -> None:
            try:
                found.append(self.function(**given))
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=call, name=f"reward {self.name}", daemon=True)  # which nobody waits for once its time is over
        thread.start()
        thread.join(self.limit)
        if not found:
            more = "" if self.where.startswith("evaluation.") else f", or raise {self.where.rpartition('.')[0]}.timeLimit"
            raise self.failed(step, f"it took longer than {self.limit:g} s", f"mend it{more}")
        (result,) = found
        if isinstance(result, Exception):
            raise self.failed(step, _lines(result), "mend the function") from result
        try:
            values = [None if value is None else float(value) for value in result]
        except (TypeError, ValueError) as error:
            raise self.failed(step, f"it returned {printable(repr(result)[:60])}", "return a list of numbers") from error
        if len(values) != count:
            why = f"it returned {len(values)} numbers for {count} {self.unit}s"
            raise self.failed(step, why, "return one for each, or None to abstain")
        for at, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                raise self.failed(step, f"it returned {value}", "return a number, or None to abstain", at)
        return values

    def failed(self, step: int, why: str, how: str, at: int = 0) -> JobError:
        """GTJ0221."""
        what = f"a reward function of {self.where} failed at step {step + 1}"
        return JobError("GTJ0221", what, where=self.name, why=f"{why}; {self.shown(at)}", how=how)


def _lines(error: Exception) -> str:
    """What was raised, and where in lines that are not ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if OURS not in Path(frame.filename).resolve().parents]
    places = ", ".join(f"{frame.filename}:{frame.lineno} {frame.line}" for frame in frames[-3:])
    return f"{type(error).__name__}: {error}" + (f" ({places})" if places else "")
