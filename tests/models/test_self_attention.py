"""Self-attention against the paper's sums, written out; that it begins as nothing; that it has a second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainjobs.models import dcgan
from trainjobs.models.self_attention import SelfAttention


def test_is_equations_1_to_3_of_the_paper() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(16).double(), torch.randn(2, 16, 3, 4).double()
    nn.init.constant_(layer.gamma, 0.7)
    wf, wg, wh, wv = (w.weight.flatten(1) for w in (layer.key, layer.query, layer.value, layer.out))
    assert [w.shape for w in (wf, wg, wh, wv)] == [(2, 16), (2, 16), (8, 16), (16, 8)]
    for sample, y in zip(x.flatten(2), layer(x).flatten(2), strict=True):
        f, g, h = wf @ sample, wg @ sample, wh @ sample
        for j in range(12):
            beta = torch.stack([(f[:, i] @ g[:, j]).exp() for i in range(12)])
            o = wv @ sum(beta[i] / beta.sum() * h[:, i] for i in range(12))
            torch.testing.assert_close(y[:, j], sample[:, j] + 0.7 * o)


def test_a_network_begins_as_it_would_without() -> None:
    made = dcgan.Generator(latent_dim=4, channels=8, size=16, image_channels=1, batch_norm=True, attention=[4, 8])
    attending = [layer for layer in made.layers if isinstance(layer, SelfAttention)]
    assert [layer.gamma.item() for layer in attending] == [0.0, 0.0]
    x = torch.randn(2, attending[0].out.out_channels, 4, 4)
    assert torch.equal(attending[0](x), x)


@pytest.mark.parametrize(("size", "resolutions"), [(8, [4]), (32, [4, 8, 16]), (32, [16])])
def test_stands_at_maps_of_the_size_that_was_asked_for(size: int, resolutions: list[int]) -> None:
    made = dcgan.Generator(latent_dim=4, channels=8, size=size, image_channels=1, batch_norm=True, attention=resolutions)
    judge = dcgan.Discriminator(channels=8, size=size, image_channels=1, batch_norm=True, spectral=True, attention=resolutions)
    seen: list[int] = []
    for layer in [*made.modules(), *judge.modules()]:
        if isinstance(layer, SelfAttention):
            layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    assert judge(made(torch.randn(2, 4))).shape == (2,)
    assert seen == [*resolutions, *reversed(resolutions)]


def test_has_a_second_derivative() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(4).double()
    nn.init.constant_(layer.gamma, 0.5)
    assert torch.autograd.gradgradcheck(layer, torch.randn(1, 4, 2, 2).double().requires_grad_(), fast_mode=True)
