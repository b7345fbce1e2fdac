"""What samples are drawn for, as people write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import open_source
from trainjobs.data.source import DataInfo
from trainjobs.evaluate.evaluation import drawing
from trainjobs.evaluate.prompts import account, conditions_of, number, prompted, words

INFO = DataInfo("image", (3, 8, 8), 10, 2, classes=("circle", "square", "7"))


def spec(kind: str, **evaluation: Any) -> Spec:
    conditioning = {"type": kind} | ({"length": 16} if kind == "text" else {})
    training = {"steps": 1, "batch": {"global": 4}}
    data = {"source": "builtin:shapes"}
    return Spec.model_validate({"diffusion": {"conditioning": conditioning}, "data": data, "training": training, "evaluation": evaluation})


def test_prompts_are_drawn_for_one_after_the_other_and_from_the_front_again() -> None:
    found = prompted(spec("text", prompts=["a", "bc"]), INFO, torch.tensor([0, 1, 2, 5]))
    assert found is not None
    assert words(found, ()) == ["a", "bc", "a", "bc"]
    assert prompted(spec("text"), INFO, torch.arange(3)) is None


def test_classes_by_name_and_by_number() -> None:
    assert conditions_of(["square", "0", "7"], spec("class"), INFO.classes, "x")["label"].tolist() == [1, 0, 2]


@pytest.mark.parametrize(("name", "how"), [("squar", 'did you mean "square"?'), ("9", "or its number")])
def test_a_class_that_there_is_not(name: str, how: str) -> None:
    with pytest.raises(JobError, match="there is no class") as caught:
        number(name, INFO.classes, "evaluation.prompts")
    assert caught.value.code == "GTJ0102"
    assert how in str(caught.value.how)


def test_a_prompt_that_is_too_long() -> None:
    with pytest.raises(JobError, match="longer than 16 bytes") as caught:
        conditions_of(["ä" * 9], spec("text"), (), "--prompt")
    assert caught.value.code == "GTJ0113"
    assert "has 18" in str(caught.value.why)


def test_what_a_commit_keeps_says_what_samples_are_of() -> None:
    kept = account(spec("class"), INFO, {"label": torch.tensor([2, 0])})
    assert kept["for"] == ["7", "circle"]
    assert kept["classes"] == ["circle", "square", "7"]


MESSAGE = [{"role": "user", "content": "two and two"}]
ANSWERED = [*MESSAGE, {"role": "assistant", "content": "four"}]


@pytest.mark.parametrize(
    ("method", "row", "expected"),
    [
        ("sft", {"messages": ANSWERED}, True),
        ("sft", {"prompt": MESSAGE, "completion": ANSWERED[1:]}, True),
        ("sft", {"prompt": "two and two", "completion": "four"}, False),
        ("sft", {"text": "two and two is four"}, False),
        ("dpo", {"prompt": MESSAGE, "chosen": ANSWERED[1:], "rejected": [{"role": "assistant", "content": "five"}]}, True),
        ("dpo", {"prompt": "two and two", "chosen": "four", "rejected": "five"}, False),
        ("grpo", {"prompt": MESSAGE}, True),
        ("grpo", {"prompt": "two and two"}, False),
    ],
)
def test_a_commit_says_whether_prompts_are_conversations(method: str, row: dict[str, Any], expected: bool, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row | {"id": str(number)}) + "\n" for number in range(24)))
    own = {"sft": {}, "dpo": {}, "grpo": {"grpo": {"generations": 2, "maxCompletion": 8, "rewards": [{"function": "length", "target": 3}]}}}
    spec = Spec.model_validate(
        {
            "language": {"network": {"contextLength": 96}, "method": method, **own[method]},
            "data": {"source": f"file://{tmp_path / 'data'}", "holdout": 0.25},
            "training": {"steps": 1, "batch": {"global": 4}},
        }
    )
    assert drawing(spec, open_source(spec, tmp_path), 4).get("chat", False) == expected
