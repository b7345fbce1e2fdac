"""When torch alone is enough at stage 0, and how gradients are sent. tests/equivalence/test_direct.py has it beside DeepSpeed's engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainjobs.api.job import Spec
from trainjobs.engine.direct import buckets, enough


def spec(config: dict[str, Any]) -> Spec:
    return Spec.model_validate(
        {
            "vae": {},
            "data": {"source": "builtin:digits"},
            "training": {"steps": 1, "batch": {"global": 4}},
            "deepspeed": {"config": config},
        }
    )


def test_deepspeed_stays_where_something_of_it_is_asked_for() -> None:
    network = nn.Linear(2, 1)
    assert enough(spec({}), 0, network.parameters())
    assert not enough(spec({"gradient_predivide_factor": 2.0}), 0, network.parameters())
    assert not enough(spec({}), 1, network.parameters())


def test_deepspeed_stays_where_weights_are_not_alike() -> None:
    expert: Any = nn.Linear(2, 1)
    assert not enough(spec({}), 0, nn.Linear(2, 1, dtype=torch.bfloat16).parameters())
    expert.weight.allreduce = False  # as DeepSpeed marks an expert's
    assert not enough(spec({}), 0, expert.parameters())


@pytest.mark.parametrize(
    ("most", "expected"), [(100, [[1, 2, 3, 4]]), (2, [[1, 2], [3], [4]]), (3, [[1, 2, 3], [4]]), (0, [[1], [2], [3], [4]])]
)
def test_a_bucket_ends_when_it_has_more_than_most(most: int, expected: list[list[int]]) -> None:
    assert [[each.numel() for each in bucket] for bucket in buckets([torch.zeros(n) for n in (1, 2, 3, 4)], most)] == expected
