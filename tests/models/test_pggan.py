"""PGGAN's networks against the paper's table written as functions, level by level, and its fade by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.models import pggan


def conv(layer: nn.Module, x: Tensor, *, gain: float = math.sqrt(2), padding: int = 1) -> Tensor:
    """He's constant, as the layer runs."""
    inputs = layer.weight[0].numel()
    return F.conv2d(x, layer.weight * gain / math.sqrt(inputs), layer.bias, padding=padding)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def pixel_norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(dim=1, keepdim=True) + 1e-8).sqrt()


def made(g: nn.Module, z: Tensor, level: int) -> Tensor:
    """Features of a level: table 2 of the paper, and its 4 x 4 convolution as the dense layer that it is."""
    first = g.first
    dense = torch.einsum("bi,oikl->bokl", pixel_norm(z), first.weight.flip(2, 3)) * math.sqrt(2) / 4 / math.sqrt(z.shape[1])
    x = pixel_norm(leaky(dense + first.bias[:, None, None]))
    x = pixel_norm(leaky(conv(g.second, x)))
    for block in g.blocks[:level]:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for layer in (block.first, block.second):
            x = pixel_norm(leaky(conv(layer, x)))
    return x


def half(x: Tensor) -> Tensor:
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean(dim=(3, 5))


def networks(start: int | None = 0) -> tuple[pggan.Generator, pggan.Discriminator]:
    torch.manual_seed(0)
    options = {"channels": 3, "size": 16, "image_channels": 1, "start": start}
    g, d = pggan.Generator(latent_dim=5, **options), pggan.Discriminator(**options, group=2)
    for network in (g, d):
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter)
    return g, d


@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_image_of_a_level_is_the_colours_of_its_features(level: int) -> None:
    g, _ = networks()
    z = torch.randn(4, 5)
    colours = conv(g.colours[level], made(g, z, level), gain=1.0, padding=0)
    torch.testing.assert_close(g(z, level), colours)
    assert colours.shape[-1] == 4 << level
    if level:
        before = conv(g.colours[level - 1], made(g, z, level - 1), gain=1.0, padding=0)
        mixed = 0.7 * before.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.3 * colours
        torch.testing.assert_close(g(z, level, 0.3), mixed)


def judged(d: nn.Module, x: Tensor, level: int) -> Tensor:
    for block in [*d.blocks[:level]][::-1]:
        x = half(leaky(conv(block.second, leaky(conv(block.first, x)))))
    pairs = x.unflatten(0, (-1, 2))
    differ = (pairs.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat_interleave(2)
    x = torch.cat([x, differ[:, None, None, None].expand(-1, 1, 4, 4)], dim=1)
    x = leaky(conv(d.second, leaky(conv(d.first, x)), padding=0)).flatten(1)
    return (F.linear(x, d.score.weight / math.sqrt(x.shape[1])) + d.score.bias).flatten()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_score_of_a_level_begins_with_its_colours(level: int) -> None:
    _, d = networks()
    image = torch.randn(4, 1, 4 << level, 4 << level)
    torch.testing.assert_close(d(image), judged(d, leaky(conv(d.colours[level], image, padding=0)), level))
    if level:
        block = d.blocks[level - 1]
        own = half(leaky(conv(block.second, leaky(conv(block.first, leaky(conv(d.colours[level], image, padding=0)))))))
        small = leaky(conv(d.colours[level - 1], half(image), padding=0))
        torch.testing.assert_close(d(image, 0.3), judged(d, 0.7 * small + 0.3 * own, level - 1))


def test_layers_that_are_not_grown_are_not_computed_and_every_parameter_belongs_to_one_level() -> None:
    g, d = networks(start=1)
    ran: list[str] = []
    for network in (g, d):
        for name, module in network.named_modules():
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    d(g(torch.randn(4, 5), 1))
    assert not any(name.startswith("blocks.1") or name == "colours.1" for name in ran)
    for network in (g, d):
        parts = [id(parameter) for level in (1, 2) for parameter in network.of_level(level)]
        assert sorted(parts) == sorted(map(id, network.parameters()))


def test_without_growing_there_are_the_colours_of_the_highest_level_alone() -> None:
    g, d = networks(start=None)
    assert (len(g.colours), len(d.colours)) == (1, 1)
    assert d(g(torch.randn(2, 5))).shape == (2,)


def test_colours_of_before_have_the_gradient_zero_and_not_none() -> None:
    g, d = networks()
    d(g(torch.randn(4, 5), 2)).sum().backward()
    for network in (g, d):
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None for gradient in gradients)
        assert all(bool((parameter.grad == 0).all()) for parameter in network.colours[0].parameters() if parameter.grad is not None)
