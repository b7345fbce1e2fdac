"""A class in a GAN's networks, against the equations written out by hand, class by class."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.training import Optimizer
from trainjobs.models import dcgan, sagan, stylegan2
from trainjobs.models.normalization import ConditionalBatchNorm
from trainjobs.models.projection import Projection
from trainjobs.noise import Noise
from trainjobs.optim.groups import grouped

CLASSES = 3
LABELS = torch.tensor([2, 0, 1, 2, 0, 0])


def images(size: int = 16) -> Tensor:
    return torch.randn(len(LABELS), 1, size, size, generator=torch.Generator().manual_seed(1))


def test_conditional_batch_norm_begins_as_batch_norm_and_has_a_scale_and_a_bias_for_each_class() -> None:
    torch.manual_seed(0)
    layer, plain, x = ConditionalBatchNorm(5, CLASSES), nn.BatchNorm2d(5), torch.randn(6, 5, 4, 4) * 3 + 1
    torch.testing.assert_close(layer(x, LABELS), plain(x))
    torch.testing.assert_close(layer.norm.running_var, plain.running_var)
    nn.init.normal_(layer.scale.weight)
    nn.init.normal_(layer.bias.weight)
    normal = F.batch_norm(x, None, None, training=True)
    by_hand = [
        layer.scale.weight[c][:, None, None] * row + layer.bias.weight[c][:, None, None] for c, row in zip(LABELS, normal, strict=True)
    ]
    torch.testing.assert_close(layer(x, LABELS), torch.stack(by_hand))


@pytest.mark.parametrize("architecture", ["dcgan", "sagan"])
def test_the_score_of_a_class_is_that_of_none_and_a_product_with_its_row(architecture: str) -> None:
    torch.manual_seed(0)
    options = {"channels": 4, "size": 16, "image_channels": 1, "classes": CLASSES}
    d: nn.Module = (
        sagan.Discriminator(**options) if architecture == "sagan" else dcgan.Discriminator(**options, batch_norm=False, spectral=True)
    )
    d.eval()
    kept: list[Tensor] = []
    d.projection.register_forward_hook(lambda module, given, out: kept.append(given[0]))
    scores = torch.stack([d(images(), torch.full_like(LABELS, label)) for label in range(CLASSES)])
    features, table = kept[0], d.projection.table.weight
    torch.testing.assert_close(scores[1] - scores[0], features @ (table[1] - table[0]))
    assert torch.linalg.matrix_norm(table, 2).item() == pytest.approx(1.0, abs=0.05)


def test_features_are_added_up_over_the_places() -> None:
    torch.manual_seed(0)
    d = dcgan.Discriminator(channels=4, size=16, image_channels=1, batch_norm=False, spectral=False, classes=CLASSES)
    x = images()
    h = x
    for layer in list(d.layers)[:-1]:
        h = layer(h)
    alone = d.layers[-1](h).flatten()
    by_hand = alone + torch.stack(
        [(d.projection.table.weight[label] * row.sum(dim=(1, 2))).sum() for label, row in zip(LABELS, h, strict=True)]
    )
    torch.testing.assert_close(d(x, LABELS), by_hand)


def test_the_table_is_as_it_is_without_spectral_norm() -> None:
    table = Projection(CLASSES, 4, spectral=False)
    x = torch.randn(6, 4)
    torch.testing.assert_close(table(x, LABELS), (table.table.weight[LABELS] * x).sum(1))


def test_a_class_stands_beside_the_latent_each_normalised_by_itself() -> None:
    torch.manual_seed(0)
    g = stylegan2.Generator(latent_dim=8, channels=2, size=8, image_channels=1, mapping_layers=2, classes=CLASSES)
    z = torch.randn(6, 8)
    e = g.told.layer.weight[:, LABELS].T / math.sqrt(CLASSES) + g.told.layer.bias
    w = torch.cat([z / z.square().mean(1, keepdim=True).sqrt(), e / e.square().mean(1, keepdim=True).sqrt()], dim=1)
    for layer in g.mapping:
        w = F.leaky_relu(F.linear(w, layer.weight * 0.01 / math.sqrt(w.shape[1]), layer.bias * 0.01), 0.2) * math.sqrt(2)
    torch.testing.assert_close(g.style(z, LABELS), w)
    noise = Noise(1, torch.arange(6))
    alone = g(z[:1], Noise(1, torch.arange(1)), LABELS[:1])
    torch.testing.assert_close(g(z, noise, LABELS)[:1], alone)
    assert not torch.allclose(g(z, noise, LABELS), g(z, noise, (LABELS + 1) % CLASSES))


def test_stylegan2_s_discriminator_takes_the_product_of_features_and_a_mapped_class() -> None:
    torch.manual_seed(0)
    d = stylegan2.Discriminator(channels=2, size=8, image_channels=1, classes=CLASSES)
    kept: list[Tensor] = []
    d.score.register_forward_hook(lambda module, given, out: kept.append(out))
    scores = d(images(8), LABELS)
    against = torch.stack([d.mapping(d.told(label[None]))[0] for label in LABELS])
    torch.testing.assert_close(scores, torch.einsum("bc,bc->b", kept[0], against) / math.sqrt(against.shape[1]))


def test_the_mean_style_is_over_all_classes() -> None:
    torch.manual_seed(0)
    g = stylegan2.Generator(latent_dim=8, channels=2, size=8, image_channels=1, mapping_layers=1, classes=CLASSES)
    before = g.mean_style()
    with torch.no_grad():
        g.told.layer.weight[:, 2].neg_()
    assert not torch.allclose(before, g.mean_style()), "found anew when what embeds a class has changed"


def test_looking_at_the_groups_of_parameters_iterates_nothing() -> None:
    table = Projection(CLASSES, 4, spectral=True)
    before = {name: buffer.clone() for name, buffer in table.named_buffers()}
    (group,) = grouped("discriminator", table, None, {}, lambda name: Optimizer())
    assert group.embeddings == {"table.parametrizations.weight.original"}
    assert all(torch.equal(buffer, before[name]) for name, buffer in table.named_buffers())
