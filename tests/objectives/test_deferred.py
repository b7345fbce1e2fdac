"""Metrics that are worked out at the sync: the same numbers as one at a time, whatever they are worked out with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainjobs.engine.norm import total
from trainjobs.objectives.deferred import Deferred, Metric, mean, numbers
from trainjobs.objectives.gan.losses import LOSSES

BCE, LSGAN = LOSSES["bce"], LOSSES["lsgan"]


def scores(count: int, size: int, seed: int) -> list[Tensor]:
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 1, generator=made) for _ in range(count)]


def accuracy(real: Tensor, fake: Tensor, boundary: float) -> Tensor:
    return 0.5 * ((real > boundary).mean(dtype=torch.float32) + (fake < boundary).mean(dtype=torch.float32))


@pytest.mark.parametrize("size", [1, 7, 64, 333])
@pytest.mark.parametrize(
    ("rule", "alone"),
    [
        (mean, lambda real, fake: real.mean()),
        (BCE.accuracy, lambda real, fake: accuracy(real, fake, 0.0)),
        (LSGAN.accuracy, lambda real, fake: accuracy(real, fake, 0.5)),
        (LSGAN.signs, lambda real, fake: (real - 0.5).sign().mean()),
    ],
)
def test_it_is_the_same_number_to_the_last_bit(rule: Callable[..., Tensor], alone: Callable[..., Tensor], size: int) -> None:
    pairs = list(zip(scores(40, size, 1), scores(40, size, 2), strict=True))
    metrics = [Deferred(rule, pair if getattr(rule, "__name__", "") == "accuracy" else pair[:1]) for pair in pairs]
    wanted = [alone(*pair).item() for pair in pairs]
    assert numbers(metrics) == wanted
    for count in (1, 2, 3, 17):  # nor does it depend on how many are worked out with it
        assert numbers(metrics[:count]) == wanted[:count]


@pytest.mark.parametrize("parts", [1, 2, 5, 40, 301])
def test_the_norm_of_norms_is_that_of_the_whole_gradient(parts: int) -> None:
    steps = [[each[:, 0] for each in scores(parts, 3, seed)] for seed in range(20)]
    metrics = [Deferred(total, (torch.stack(torch._foreach_norm(gradients)),)) for gradients in steps]
    together = numbers(metrics)
    assert together == [torch.nn.utils.get_total_norm(gradients).item() for gradients in steps]
    assert together == pytest.approx([torch.cat(gradients).double().norm().item() for gradients in steps], rel=1e-6)
    assert numbers(metrics[:1]) == together[:1]


def test_kinds_that_are_mixed_come_back_in_their_order_and_exactly() -> None:
    real, fake = scores(2, 5, 3)
    metrics: list[Metric] = [
        torch.tensor(0.1),
        Deferred(BCE.accuracy, (real, fake)),
        torch.tensor(0.1, dtype=torch.float64),
        Deferred(mean, (real,)),
        torch.tensor(2**40 + 1),
        Deferred(mean, (real[:3],)),
        torch.tensor([float("nan")]),
    ]
    found = numbers(metrics)
    assert found[:6] == [
        torch.tensor(0.1).item(),
        accuracy(real, fake, 0.0).item(),
        0.1,
        real.mean().item(),
        float(2**40 + 1),
        real[:3].mean().item(),
    ]
    assert found[6] != found[6]
    assert float(metrics[3]) == real.mean().item()
    assert numbers([]) == []


def test_what_is_not_a_scalar_is_no_metric() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        numbers([torch.zeros(2)])


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_hundred_steps_take_as_many_rules_as_one() -> None:
    """All rows of a kind are put together: it is their stack that grows, not the number of the rules' own operations."""
    counts = []
    for steps in (1, 100):
        pairs = list(zip(scores(steps, 8, 1), scores(steps, 8, 2), strict=True))
        with Counting() as counting:
            numbers([Deferred(BCE.accuracy, pair) for pair in pairs])
        counts.append(counting.count - 2 * steps)  # a detach of each tensor
    assert counts[0] == counts[1]
