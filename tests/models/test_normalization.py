"""Normalisation against PyTorch's own, and at the precision mixture of DeepSpeed's bf16 mode: parameters bf16, buffers float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainjobs.models.normalization import BatchNorm, spectral_norm


@pytest.mark.parametrize(("theirs", "shape"), [(nn.BatchNorm1d(5), (16, 5)), (nn.BatchNorm2d(5), (4, 5, 3, 3))])
def test_batch_norm_is_pytorchs(theirs: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours = BatchNorm(5)
    for network in (ours, theirs):
        network.load_state_dict({**network.state_dict(), "weight": torch.arange(1.0, 6.0), "bias": torch.arange(5.0)})
    for training in (True, True, False):
        x = 3.0 * torch.randn(shape) + 1.0
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_takes_bf16_parameters_beside_float32_statistics(training: bool) -> None:
    norm = BatchNorm(5).train(training)
    x = torch.randn(64, 5)
    exact = norm(x)
    norm.weight.data, norm.bias.data = norm.weight.data.bfloat16(), norm.bias.data.bfloat16()
    made = norm(x.bfloat16())
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), exact, atol=0.05, rtol=0.02)
    made.sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_spectral_norm_converges_to_one(weights: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(7, 5))
    for parameter in layer.parameters():
        parameter.data = parameter.data.to(weights)
    with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.bfloat16):
        for _ in range(100):
            output = layer(torch.randn(2, 7))
        output.sum().backward()
    assert torch.linalg.matrix_norm(layer.weight.float(), 2).item() == pytest.approx(1.0, abs=1e-3 if weights == torch.float32 else 1e-2)
    assert all(p.grad is not None and p.grad.dtype == weights for p in layer.parameters())
