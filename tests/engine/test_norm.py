"""The norm of a gradient: measured between the sum over the ranks and the clipping. tests/equivalence/test_gan_matrix.py has it at every
stage against plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainjobs.engine.norm import GradientNorm


class Clipping:
    """As DeepSpeed's engine at stage 0: a step that clips in place and clears."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.taken = network, 0

    def _take_model_step(self, keywords: object) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.network.zero_grad(set_to_none=True)
        self.taken += 1


def test_the_norm_is_that_before_clipping_and_of_what_has_a_gradient() -> None:
    network = nn.Linear(2, 1)
    engine = Clipping(network)
    norm = GradientNorm(engine, list(network.parameters()), 0)
    network.weight.grad = torch.tensor([[3.0, 4.0]])
    engine._take_model_step(None)
    measured = norm.last()
    assert measured is not None
    assert float(measured) == pytest.approx(5.0)
    assert engine.taken == 1
    assert network.weight.grad is None


def test_from_stage_1_on_it_is_deepspeeds() -> None:
    class Partitioned(Clipping):
        class optimizer:
            _global_grad_norm: float | None = 2.5

    engine = Partitioned(nn.Linear(2, 1))
    before = engine._take_model_step
    norm = GradientNorm(engine, [], 1)
    assert norm.last() == torch.tensor(2.5)
    assert engine._take_model_step == before
    engine.optimizer._global_grad_norm = None  # as with zero_optimization: {compute_grad_norm: false}
    assert norm.last() is None
