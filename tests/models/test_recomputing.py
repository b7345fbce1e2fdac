"""Blocks that are computed again in the backward pass give the same numbers, bit for bit, with dropout and in bf16, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.language import Transformer
from trainjobs.models.dit import DiT
from trainjobs.models.recomputing import recompute
from trainjobs.models.transformers import causal_language_model
from trainjobs.models.unet import UNet
from trainjobs.noise import Noise
from trainjobs.objectives.dropout import masks

NOISE = Noise.of(0, 1, "train.0", torch.arange(4))


def unet() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    network = UNet(image_channels=1, channels=8, multipliers=[1, 2], blocks=1, attention=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network, lambda made: made(torch.linspace(-1, 1, 256).view(4, 1, 8, 8), torch.arange(4))


def dit() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    network = DiT(image_channels=1, size=8, hidden=16, layers=2, heads=2, patch=2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network, lambda made: made(torch.linspace(-1, 1, 256).view(4, 1, 8, 8), torch.arange(4))


def language(architecture: str) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    dropout = 0.2 if architecture == "gpt2" else 0.0
    settings = Transformer.model_validate(
        {"architecture": architecture, "layers": 2, "hidden": 16, "heads": 2, "contextLength": 8, "dropout": dropout}
    )
    return causal_language_model(settings, 50, 49), lambda made: made(input_ids=torch.arange(32).view(4, 8)).logits


def gradients(found: tuple[nn.Module, Callable[[nn.Module], Tensor]], again: bool, low: bool) -> tuple[dict[str, Tensor], int]:
    """Of every parameter, and how often the last kind of layer was computed."""
    network, use = found
    if again:
        recompute("net", network)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    layers = [
        layer
        for layer in network.modules()
        if isinstance(layer, (nn.GroupNorm, *((nn.Linear,) if isinstance(network, DiT) else ())))
        or type(layer).__name__.endswith(("Attention", "MLP"))
    ]
    for layer in layers:
        layer.register_forward_hook(count)
    network.train()
    with masks(NOISE):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = use(network).float().square().mean()
        loss.backward()
    return {path: parameter.grad for path, parameter in network.named_parameters() if parameter.grad is not None}, calls


@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("make", [unet, dit, lambda: language("gpt2"), lambda: language("llama")], ids=["unet", "dit", "gpt2", "llama"])
def test_gradients_are_the_same(make: Callable[[], tuple[nn.Module, Callable[[nn.Module], Tensor]]], low: bool) -> None:
    (kept, once), (again, twice) = gradients(make(), False, low), gradients(make(), True, low)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[path], again[path]) for path in kept)
    assert twice >= 1.5 * once


def test_names_in_checkpoints_are_the_same() -> None:
    network = unet()[0]
    before = list(network.state_dict())
    recompute("denoiser", network)
    assert list(network.state_dict()) == before


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(JobError, match="gradientCheckpointing of critic") as refused:
        recompute("critic", nn.Linear(1, 1))
    assert refused.value.code == "GTJ0108"
