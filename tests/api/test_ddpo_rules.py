"""What does not go together where a diffusion model learns from rewards."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.job import Job
from trainjobs.api.rules import check

REWARD = {"reward": "my_rewards:brightness"}


@pytest.mark.parametrize(
    ("diffusion", "words"),
    [
        ({"ddpo": REWARD, "sampler": {"eta": 0.0}}, "ddpo with eta: 0"),
        ({"ddpo": REWARD, "sampler": {"eta": 1.0, "steps": 1}}, "ddpo"),
        ({"sampler": {"eta": 1.0}}, "reward"),
    ],
)
def test_these_are_refused(diffusion: dict[str, Any], words: str) -> None:
    found = problems({"method": "ddpo", **diffusion})
    assert [code for code, _ in found] == ["GTJ0108"], found
    assert words in found[0][1]


def test_this_is_fine() -> None:
    assert problems({"method": "ddpo", "ddpo": REWARD, "sampler": {"eta": 1.0}}) == []


def problems(diffusion: dict[str, Any]) -> list[tuple[str, str]]:
    spec = {"diffusion": diffusion, "data": {"source": "builtin:digits"}, "training": {"steps": 1}}
    told = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": spec}
    return [(problem.code, f"{problem.what}: {problem.how}") for problem in check(Job.model_validate(told))]
