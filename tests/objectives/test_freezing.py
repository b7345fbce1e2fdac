"""Which parameters thaw when, by patterns; and batch norm that stands still with its parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.training import Training
from trainjobs.objectives.freezing import NEVER, StillNorms, divided_by_thaw, optimizer_of
from trainjobs.objectives.phase import Network


def networks() -> dict[str, Network]:
    d = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    return {"generator": Network(nn.Linear(2, 2)), "discriminator": Network(d)}


def training(**fields: object) -> Training:
    return Training.model_validate({"steps": 10, **fields})


def thaws(found: dict[str, Network], name: str) -> dict[str, int]:
    """By path, when it begins to train."""
    network = found[name]
    assert network.groups is not None
    names = {id(parameter): path for path, parameter in network.module.named_parameters()}
    return {names[id(p)]: network.thaws.get(group, 0) for group, own in network.groups.items() for p in own}


def test_nothing_frozen_changes_nothing() -> None:
    before = networks()
    assert divided_by_thaw(before, training()) == before


def test_patterns_name_parts_and_stages_thaw_them() -> None:
    stages = [{"step": 4, "patterns": ["discriminator.1"]}, {"step": 7, "patterns": ["*.weight"]}]
    found = divided_by_thaw(networks(), training(freeze=["discriminator.0", "discriminator.1", "generator.b*"], unfreeze=stages))
    assert thaws(found, "generator") == {"weight": 0, "bias": NEVER}
    assert thaws(found, "discriminator") == {
        "0.weight": 7, "0.bias": NEVER, "1.weight": 4, "1.bias": 4, "2.weight": 0, "2.bias": 0,
    }  # fmt: skip


def test_a_custom_objectives_own_groups_and_thaws_stay() -> None:
    module = nn.Linear(2, 2)
    network = Network(module, {"slow": [module.weight], "fast": [module.bias]}, {"fast": 5})
    asked = training(freeze=["net.bias"], unfreeze=[{"step": 3, "patterns": ["net.bias"]}])
    found = divided_by_thaw({"net": network, "teacher": Network(nn.Linear(1, 1), {})}, asked)
    assert thaws(found, "net") == {"weight": 0, "bias": 5}
    assert found["teacher"].groups == {}


def test_a_part_has_the_optimizer_of_its_group() -> None:
    family = {"vae": {}, "data": {"source": "builtin:digits"}}
    spec = Spec.model_validate({**family, "training": {"steps": 1, "optimizers": {"autoencoder": {"learningRate": 0.5}}}})
    assert optimizer_of(spec, "autoencoder@never").learning_rate == optimizer_of(spec, "autoencoder").learning_rate == 0.5


@pytest.mark.parametrize(
    ("fields", "what", "how"),
    [
        ({"freeze": ["discriminatr.0"]}, "discriminatr.0 matches no parameter", "nearest names: discriminator.0"),
        ({"freeze": ["*.attention.*"]}, "matches no parameter", "nearest names: generator"),
        ({"freeze": ["generator.bias"], "unfreeze": [{"step": 1, "patterns": ["discriminator.2"]}]}, "nothing that training.", "freeze"),
        ({"freeze": ["generator"]}, "nothing of the generator trains at the first step", "leave some of it out"),
    ],
)  # fmt: skip
def test_patterns_without_effect_are_refused(fields: dict[str, object], what: str, how: str) -> None:
    with pytest.raises(JobError) as refused:
        divided_by_thaw(networks(), training(**fields))
    assert refused.value.code == "GTJ0108"
    assert what in refused.value.what
    assert how in refused.value.how


def test_batch_norm_keeps_its_statistics_while_it_is_frozen() -> None:
    asked = training(freeze=["discriminator.1"], unfreeze=[{"step": 2, "patterns": ["discriminator.1"]}])
    found = divided_by_thaw(networks(), asked)
    network, still = found["discriminator"].module, StillNorms.of(found, asked)
    norm = network[1]  # type: ignore[index]
    for step in (0, 1, 2, 1):
        still.begin(step)
        network.eval()
        network.train()
        before = norm.running_mean.clone()
        network(torch.randn(8, 2))
        assert norm.training == (step >= 2)
        assert torch.equal(before, norm.running_mean) == (step < 2)
    assert network[0].training  # type: ignore[index]
