"""SAGAN's networks against the same blocks written as functions, with spectral norm by singular values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.models import sagan


def weight(layer: nn.Module) -> Tensor:
    """What is trained, over its largest singular value."""
    own = layer.parametrizations.weight.original
    return own / torch.linalg.matrix_norm(own.flatten(1), 2)


def settle(network: nn.Module, *given: Tensor) -> nn.Module:
    """So many passes that the power iterations are at their ends."""
    network.train()
    with torch.no_grad():
        for _ in range(200):
            network(*given)
    return network.eval()


def conv(layer: nn.Module, x: Tensor) -> Tensor:
    return F.conv2d(x, weight(layer), layer.bias, padding=layer.kernel_size[0] // 2)


def attention(layer: nn.Module, x: Tensor) -> Tensor:
    """Zhang et al., equations 1 to 3, place by place."""
    f, g, h = (torch.einsum("oc,bcn->bon", weight(own).flatten(1), x.flatten(2)) for own in (layer.key, layer.query, layer.value))
    beta = torch.softmax(torch.einsum("bci,bcj->bij", f, g), dim=1)
    o = torch.einsum("oc,bcn->bon", weight(layer.out).flatten(1), torch.einsum("bci,bij->bcj", h, beta))
    return x + layer.gamma * o.view_as(x)


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def half(x: Tensor) -> Tensor:
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean(dim=(3, 5))


def normal(layer: nn.Module, x: Tensor) -> Tensor:
    shape = (1, -1, 1, 1)
    spread = (layer.running_var + 1e-5).sqrt().view(shape)
    return layer.weight.view(shape) * (x - layer.running_mean.view(shape)) / spread + layer.bias.view(shape)


@pytest.mark.slow
def test_the_generator_is_the_paper_s() -> None:
    torch.manual_seed(0)
    z = torch.randn(16, 6)
    g = settle(sagan.Generator(latent_dim=6, channels=3, size=16, image_channels=1), z)
    g.attention["8"].gamma.data.fill_(0.7)
    x = (F.linear(z, weight(g.start), g.start.bias)).view(16, -1, 4, 4)
    for block in g.blocks:
        h = conv(block.first, twice(normal(block.norm1, x).relu()))
        x = conv(block.second, normal(block.norm2, h).relu()) + conv(block.skip, twice(x))
        x = attention(g.attention["8"], x) if x.shape[-1] == 8 else x
    torch.testing.assert_close(g(z), conv(g.last, normal(g.norm, x).relu()).tanh(), rtol=1e-3, atol=1e-4)


def test_the_discriminator_is_the_paper_s() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 1, 16, 16)
    d = settle(sagan.Discriminator(channels=3, size=16, image_channels=1), x)
    d.attention["8"].gamma.data.fill_(0.7)
    first, second = d.blocks
    h = half(conv(first.second, conv(first.first, x).relu())) + conv(first.skip, half(x))
    h = attention(d.attention["8"], h)
    h = half(conv(second.second, conv(second.first, h.relu()).relu())) + half(conv(second.skip, h))
    h = conv(d.deepest.second, conv(d.deepest.first, h.relu()).relu()) + h
    scores = F.linear(h.relu().sum(dim=(2, 3)), weight(d.score), d.score.bias).flatten()
    torch.testing.assert_close(d(x), scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("size", "at"), [(8, "4"), (32, "16"), (64, "32"), (128, "32")])
def test_attention_stands_at_32_pixels_or_at_half_the_size(size: int, at: str) -> None:
    options = {"channels": 1, "size": size, "image_channels": 1}
    for network in (sagan.Generator(latent_dim=2, **options), sagan.Discriminator(**options)):
        assert list(network.attention) == [at]
    assert list(sagan.Generator(latent_dim=2, **options, attention=[4]).attention) == ["4"]


def test_every_layer_with_weights_is_normalised_spectrally() -> None:
    for network in (
        sagan.Generator(latent_dim=2, channels=2, size=16, image_channels=1),
        sagan.Discriminator(channels=2, size=16, image_channels=1),
    ):
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        assert len(layers) > 8
        assert all(hasattr(layer, "parametrizations") for layer in layers)
