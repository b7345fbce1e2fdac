"""Functions that say what completions are worth, and what becomes of those that fail."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from trainjobs.api.alignment import RewardFunction
from trainjobs.api.errors import JobError
from trainjobs.objectives.language.rewards import Rewards

PROMPTS, COMPLETIONS = ["1+1=", "2+2="], ["2", " 5 "]


def rewards(*functions: dict[str, Any], limit: float = 60) -> Rewards:
    return Rewards.of([RewardFunction.model_validate(one) for one in functions], limit)


def called(*functions: dict[str, Any], **columns: list[Any]) -> list[float | None]:
    return rewards(*functions)(PROMPTS, COMPLETIONS, columns, 0)


def half(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [0.5, None]


def test_ours() -> None:
    assert called({"function": "length", "target": 2}) == [-0.5, -0.5]
    assert called({"function": "regex", "pattern": "^[0-9]$"}) == [1, 0]
    assert called({"function": "match", "column": "answer"}, answer=["2", 5]) == [1, 1]


def test_several_are_weighed_and_added_and_may_abstain() -> None:
    mine = {"function": f"{__name__}:half", "weight": 2}
    found = Rewards(((mine["function"], 2.0, half), *rewards({"function": "regex", "pattern": "5"}).functions), 60)
    assert found(PROMPTS, COMPLETIONS, {}, 0) == [1.0, 1.0]
    assert Rewards(((mine["function"], 2.0, half),) * 2, 60)(PROMPTS, COMPLETIONS, {}, 0) == [2.0, None]  # of which all abstain


def test_a_function_of_a_module_is_imported() -> None:
    found = rewards({"function": "operator:length_hint"})
    assert found.functions[0][2] is __import__("operator").length_hint
    with pytest.raises(JobError, match="cannot be imported") as error:
        rewards({"function": "no.such_module:function"})
    assert error.value.code == "GTJ0102"


def failing(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    raise ZeroDivisionError("nothing to divide by")


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (failing, "ZeroDivisionError: nothing to divide by"),
        (lambda **_: [1.0], "it returned 1 numbers for 2 completions"),
        (lambda **_: [float("nan"), 1.0], "it returned nan"),
        (lambda **_: 3, "it returned 3"),
        (lambda **_: ["high", "low"], "it returned ['high', 'low']"),
    ],
)
def test_a_function_that_fails_is_named_with_its_prompt_and_completion(function: Any, why: str) -> None:
    with pytest.raises(JobError) as error:
        Rewards((("mine:reward", 1.0, function),), 60)(PROMPTS, COMPLETIONS, {}, 4)
    assert error.value.code == "GTJ0221"
    assert error.value.where == "mine:reward"
    assert "at step 5" in error.value.what
    assert why in error.value.why
    assert "prompt '1+1=', completion '2'" in error.value.why


def test_a_function_that_takes_too_long_is_given_up() -> None:
    never = threading.Event()
    with pytest.raises(JobError, match="failed at step 1") as error:
        Rewards((("slow:reward", 1.0, lambda **_: never.wait()),), 0.05)(PROMPTS, COMPLETIONS, {}, 0)
    never.set()
    assert "took longer than 0.05 s" in error.value.why


def test_a_column_that_is_not_there_is_told() -> None:
    with pytest.raises(JobError) as error:
        called({"function": "match", "column": "answer"}, solution=["2", "4"])
    assert "the data has no column answer: it has solution" in error.value.why
