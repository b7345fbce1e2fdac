"""Blocks that are compiled compute what they computed, once for all of a kind; and what cannot be compiled is said before training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from trainjobs.api.language import Transformer
from trainjobs.api.vae import VaeNetwork
from trainjobs.engine import compilation
from trainjobs.engine.compilation import blocks, compiled
from trainjobs.models.dit import DiT
from trainjobs.models.recomputing import recompute
from trainjobs.models.transformers import causal_language_model
from trainjobs.models.unet import UNet
from trainjobs.noise import Noise
from trainjobs.objectives.dropout import masks

ROWS = 4
Made = tuple[nn.Module, Callable[[nn.Module], Tensor]]


def unet() -> Made:
    network = UNet(image_channels=1, channels=8, multipliers=[1, 2], blocks=1, attention=True)
    return network, lambda made: made(torch.linspace(-1, 1, 64 * ROWS).view(ROWS, 1, 8, 8), torch.arange(ROWS))


def dit() -> Made:
    network = DiT(image_channels=1, size=8, hidden=16, layers=3, heads=2, patch=2)
    return network, lambda made: made(torch.linspace(-1, 1, 64 * ROWS).view(ROWS, 1, 8, 8), torch.arange(ROWS))


def kl() -> Made:
    from trainjobs.models.autoencoder_kl import Autoencoder

    given = {"architecture": "autoencoder-kl", "channels": 4, "multipliers": [1, 2], "blocks": 1, "latentChannels": 2, "groups": 2}
    network = Autoencoder(VaeNetwork.model_validate(given), channels=1, size=8)
    pictures, noise = torch.linspace(-1, 1, 64 * ROWS).view(ROWS, 1, 8, 8), torch.linspace(-1, 1, 32 * ROWS).view(ROWS, 32)
    return network, lambda made: torch.cat([part.flatten() for part in made(noise, pictures)])


def language(architecture: str, dropout: float = 0.0, layers: int = 3) -> Made:
    settings = Transformer.model_validate(
        {"architecture": architecture, "layers": layers, "hidden": 16, "heads": 2, "contextLength": 8, "dropout": dropout}
    )
    return causal_language_model(settings, 50, 49), lambda made: made(input_ids=torch.arange(8 * ROWS).view(ROWS, 8)).logits


class Beside(nn.Module):
    """Two ways side by side, which both drop: neither waits for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.drop = nn.Linear(16, 16), nn.Linear(16, 16), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.one(x)) + self.drop(self.other(x)).tanh()  # type: ignore[no-any-return]


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Beside() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def beside() -> Made:
    return Stack(), lambda made: made(torch.linspace(-1, 1, 16 * ROWS, requires_grad=True).view(ROWS, 16))


MADE: dict[str, Callable[[], Made]] = {
    "gpt2": lambda: language("gpt2"),
    "gpt2-dropout": lambda: language("gpt2", dropout=0.2),
    "llama": lambda: language("llama"),
    "beside": beside,
    "dit": dit,
    "unet": unet,
    "kl": kl,
}


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def gradients(network: nn.Module, use: Callable[[nn.Module], Tensor], steps: int = 2) -> list[Tensor]:
    found = []
    network.train()
    for step in range(steps):
        torch.manual_seed(step)
        network.zero_grad()
        with masks(Noise.of(0, step, "train.0", torch.arange(ROWS))):
            use(network).float().square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    return found


def pair(name: str) -> tuple[nn.Module, nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    network, use = MADE[name]()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)  # those that begin as 0 would hide what is before them
    return network, copy.deepcopy(network), use


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_gradients_are_the_same_and_nothing_is_compiled_after_the_first_step(name: str) -> None:
    plain, other, use = pair(name)
    expected = gradients(plain, use)
    found = list(blocks(other))
    assert len(found) >= 2
    compiled(found, backend="aot_eager")
    first = gradients(other, use, steps=1)
    programs = counters["stats"]["unique_graphs"]
    assert 0 < programs
    with patch.object(torch._dynamo.config, "error_on_recompile", True):
        again = gradients(other, use)
    assert counters["stats"]["unique_graphs"] == programs
    assert not counters["graph_break"]
    print(name, programs, len(found), (first[0] - expected[0]).norm() / expected[0].norm())
    for ours, theirs in zip([*first, *again], [expected[0], *expected], strict=True):
        assert (ours - theirs).norm() < 1e-6 * theirs.norm()
