"""Which parameters belong to which block, and when they begin. tests/equivalence/test_adapters.py trains so, beside a plain loop."""

from __future__ import annotations

import pytest
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.pretrained import Unfreezing
from trainjobs.objectives.language.unfreezing import unfrozen


class Model(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.words, self.norm, self.head = nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5, bias=False)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        if tied:
            self.head.weight = self.words.weight


@pytest.mark.parametrize("tied", [False, True])
def test_blocks_begin_from_the_last_and_the_embedding_at_the_end(tied: bool) -> None:
    model = Model(tied)
    network = unfrozen("model", model, Unfreezing(every=10), "digest")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {group: [names[id(p)] for p in parameters] for group, parameters in (network.groups or {}).items()}
    assert groups == {
        "model/0": ["norm.weight", "norm.bias", *([] if tied else ["head.weight"]), "blocks.2.weight", "blocks.2.bias"],
        "model/1": ["blocks.1.weight", "blocks.1.bias"],
        "model/2": ["blocks.0.weight", "blocks.0.bias"],
        "model/3": ["words.weight"],
    }
    assert network.thaws == {"model/0": 0, "model/1": 10, "model/2": 20, "model/3": 30}


def test_the_rate_of_a_block_is_that_of_the_block_above_divided() -> None:
    language = {"base": {"source": "hf://a/b"}, "unfreezing": {"every": 10, "rateDecay": 2.0}}
    training = {"steps": 1, "optimizers": {"model": {"name": "sgd", "learningRate": 0.8}}}
    spec = Spec.model_validate({"language": language, "data": {"source": "builtin:stdlib-text"}, "training": training})
    assert [spec.optimizer(f"model/{depth}").learning_rate for depth in range(4)] == [0.8, 0.4, 0.2, 0.1]
    assert {spec.optimizer(f"model/{depth}").name for depth in range(4)} == {"sgd"}


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(JobError, match="block by block") as error:
        unfrozen("model", nn.Linear(2, 2), Unfreezing(every=1), "")
    assert error.value.code == "GTJ0109"
