"""What samples are drawn for, as people write it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
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
