"""The transformer over patches has diffusers' numbers, and starts at zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainjobs.api.denoiser import Conditioning
from trainjobs.models.dit import DiT

CLASS = Conditioning(type="class")
HIDDEN, CLASSES = 32, 5


def dit(**more: object) -> DiT:
    return DiT(image_channels=3, size=8, hidden=HIDDEN, layers=2, heads=2, patch=2, conditioning=CLASS, classes=CLASSES, **more)  # type: ignore[arg-type]


def test_its_numbers_are_diffusers() -> None:
    from diffusers import DiTTransformer2DModel

    ours = dit(outputs=6)
    theirs = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=3, out_channels=6, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=CLASSES, norm_eps=1e-6, norm_elementwise_affine=False,
    ).eval()  # fmt: skip
    torch.manual_seed(1)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.1)

    def give(into: nn.Module, value: nn.Module) -> None:
        into.load_state_dict(value.state_dict())

    give(theirs.pos_embed.proj, ours.first)
    for block, layer in zip(theirs.transformer_blocks, ours.layers, strict=True):
        embedding = block.norm1.emb
        embedding.time_proj.downscale_freq_shift = 0  # the authors' frequencies; diffusers' differ by 1 of 128
        give(embedding.timestep_embedder.linear_1, ours.time[0])
        give(embedding.timestep_embedder.linear_2, ours.time[2])
        give(embedding.class_embedder.embedding_table, ours.condition.table)
        give(block.norm1.linear, layer.modulation)
        for name, weight, bias in zip(("to_q", "to_k", "to_v"), layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3), strict=True):
            getattr(block.attn1, name).load_state_dict({"weight": weight, "bias": bias})
        give(block.attn1.to_out[0], layer.out)
        give(block.ff.net[0].proj, layer.up)
        give(block.ff.net[2], layer.down)
    give(theirs.proj_out_1, ours.modulation)
    give(theirs.proj_out_2, ours.last)
    x, t, label = torch.randn(3, 3, 8, 8), torch.tensor([0, 400, 999]), torch.tensor([0, 4, 2])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, t, label), theirs(x, t, label).sample, rtol=1e-5, atol=1e-5)


def test_it_starts_by_predicting_zero() -> None:
    assert dit()(torch.randn(2, 3, 8, 8), torch.tensor([1, 9]), torch.tensor([0, 5])).abs().max() == 0.0


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_come_back_to_their_places(patch: int) -> None:
    network = DiT(image_channels=1, size=8, hidden=16, layers=1, heads=1, patch=patch)
    nn.init.normal_(network.last.weight)
    network.places.zero_()
    x = torch.zeros(1, 1, 8, 8)
    x[..., :patch, 2 * patch if patch < 4 else 4 :][..., :patch] = 1.0
    with torch.no_grad():
        changed = (network(x, torch.tensor([3])) - network(torch.zeros_like(x), torch.tensor([3]))).abs().amax(dim=(0, 1)) > 1e-6
    assert torch.equal(changed, x[0, 0] > 0)
