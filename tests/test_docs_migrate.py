"""The page for those who come from other tools: each file of theirs stands before a manifest that says all of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainjobs.api.foreign_names import FOREIGN
from trainjobs.api.parse import parse
from trainjobs.api.problem import plain

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "migrate.md"
OURS = {  # names that are ours, too, or end as ours do
    "learning_rate": "training.optimizers.default.learningRate",
    "gradient_checkpointing": "training.gradientCheckpointing",
    "packing": "language.packing",
}


def pairs() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(heading, their file, our manifest)."""
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        theirs, ours = re.findall(r"^```(?:text|yaml)\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
        found.append((part.splitlines()[0], yaml.safe_load(theirs), yaml.safe_load(ours)))
    return found


PAIRS = pairs()


def field_of(name: str) -> str:
    """Where a manifest says what a name of theirs says."""
    known = {plain(foreign): path for names in FOREIGN.values() for foreign, path in names.items()}
    return OURS.get(name) or known[plain(name)]


def test_there_is_one_of_each_tool() -> None:
    assert [heading.split(":")[0] for heading, _, _ in PAIRS] == ["TRL", "axolotl", "LLaMA-Factory"]


@pytest.mark.parametrize(("heading", "theirs", "ours"), PAIRS, ids=[heading.split(":")[0] for heading, _, _ in PAIRS])
def test_the_manifest_is_good_and_says_all_that_their_file_says(heading: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    job, problems = parse(ours)
    assert job is not None
    assert not [problem for problem in problems if not problem.note]
    for name, value in theirs.items():
        said: Any = ours["spec"]
        for key in field_of(name).split("."):
            assert key in said, f"{name}: {field_of(name)}"
            said = said[key]
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert said == value, name
