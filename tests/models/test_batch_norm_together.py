"""One rank alone has torch's own batch norm, bit for bit; a network without any is told. What ranks do together: tests/equivalence/
test_any_family.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.models.batch_norm_together import BatchNormTogether, synchronise


def test_alone_it_is_torchs() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    theirs = copy.deepcopy(network)
    synchronise({"net": network})
    assert type(network[1]) is BatchNormTogether
    x = torch.randn(4, 1, 6, 6)
    assert torch.equal(network(x), theirs(x))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in network.state_dict().items())


def test_without_batch_norm_it_is_refused() -> None:
    with pytest.raises(JobError, match="no effect") as refused:
        synchronise({"generator": nn.Linear(1, 1), "critic": nn.Linear(1, 1)})
    assert refused.value.code == "GTJ0108"
    assert "generator, critic" in refused.value.why
