"""What denoisers are told: against torch's own layers, and diffusers'."""

from __future__ import annotations

import torch
from torch import nn

from trainjobs.api.denoiser import Conditioning
from trainjobs.models.condition import CrossAttention, TextCondition, TextLayer, Told
from trainjobs.models.unet import Attention, Block, UNet

TEXT = Conditioning(type="text", length=8, width=16, layers=2, heads=2)


def caption(*texts: str, length: int = 8) -> torch.Tensor:
    return torch.tensor([[*text.encode(), *[256] * (length - len(text.encode()))] for text in texts])


def scrambled(module: nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def test_a_layer_is_torchs_encoder_layer() -> None:
    ours, theirs = TextLayer(16, 2), nn.TransformerEncoderLayer(16, 2, 64, 0.0, activation="gelu", batch_first=True, norm_first=True)
    scrambled(ours)
    pairs = (
        (theirs.self_attn.in_proj_weight, ours.qkv.weight),
        (theirs.self_attn.in_proj_bias, ours.qkv.bias),
        (theirs.self_attn.out_proj.weight, ours.out.weight),
        (theirs.self_attn.out_proj.bias, ours.out.bias),
        *(
            (getattr(theirs, a).weight, getattr(ours, b).weight)
            for a, b in (("linear1", "up"), ("linear2", "down"), ("norm1", "norm1"), ("norm2", "norm2"))
        ),
        *(
            (getattr(theirs, a).bias, getattr(ours, b).bias)
            for a, b in (("linear1", "up"), ("linear2", "down"), ("norm1", "norm1"), ("norm2", "norm2"))
        ),
    )
    with torch.no_grad():
        for into, value in pairs:
            into.copy_(value)
        x, there = torch.randn(3, 5, 16), torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] + [False] * 4])
        theirs.train()  # its fast path in eval mode fills masked places with zeros
        torch.testing.assert_close(ours(x, there), theirs(x, src_key_padding_mask=~there), rtol=0, atol=2e-6)


def test_cross_attention_is_diffusers() -> None:
    from diffusers.models.attention_processor import Attention as Theirs

    ours, theirs = CrossAttention(32, 16, 2), Theirs(32, 16, heads=2, dim_head=16)
    scrambled(ours)
    keys, values = ours.keys.weight.chunk(2)
    with torch.no_grad():
        for into, value in (
            (theirs.to_q, ours.query.weight),
            (theirs.to_k, keys),
            (theirs.to_v, values),
            (theirs.to_out[0], ours.out.weight),
        ):
            into.weight.copy_(value)
        theirs.to_out[0].bias.copy_(ours.out.bias)
        x, states, there = torch.randn(2, 6, 32), torch.randn(2, 4, 16), torch.tensor([[True] * 4, [True, False, False, False]])
        mask = torch.where(there, 0.0, -torch.inf)[:, None]
        torch.testing.assert_close(ours(x, Told(x[:, 0], states, there)), theirs(x, states, attention_mask=mask), rtol=0, atol=2e-6)


def test_what_stands_behind_a_text_changes_nothing() -> None:
    encoder = TextCondition(TEXT, 12)
    scrambled(encoder)
    with torch.no_grad():
        short, long = encoder(caption("ab", length=2)), encoder(caption("ab"))
    torch.testing.assert_close(short.whole, long.whole, rtol=0, atol=1e-6)
    assert long.there is not None
    assert long.there.sum().item() == 3


def test_an_empty_text_is_a_sequence_too() -> None:
    encoder = TextCondition(TEXT, 12)
    with torch.no_grad():
        assert encoder(caption("")).whole.isfinite().all()


def test_a_unet_attends_where_it_is_asked_to() -> None:
    network = UNet(image_channels=3, channels=8, multipliers=[1, 2, 2], blocks=1, attention=True, levels=[0, 2], conditioning=TEXT)
    down = [block for block in network.down if isinstance(block, Block)]
    assert [isinstance(block.attention, Attention) for block in down] == [True, False, True]
    assert [block.text is not None for block in down] == [True, False, True]
    ups = [block for block in network.up if isinstance(block, Block)]
    assert [isinstance(block.attention, Attention) for block in ups] == [True, True, False, False, True, True]


def test_a_unet_follows_its_text_and_class() -> None:
    for given, told, other in (
        (TEXT, caption("red", "red"), caption("red", "blue")),
        (Conditioning(type="class"), torch.tensor([1, 1]), torch.tensor([1, 3])),
    ):
        network = UNet(image_channels=3, channels=8, multipliers=[1, 2], blocks=1, attention=True, conditioning=given, classes=3)
        scrambled(network)
        x, t = torch.randn(1, 3, 8, 8).expand(2, -1, -1, -1), torch.tensor([5, 5])
        with torch.no_grad():
            same, differing = network(x, t, told), network(x, t, other)
        torch.testing.assert_close(same[0], same[1])
        torch.testing.assert_close(differing[0], same[0], rtol=0, atol=1e-5)
        assert (differing[1] - same[1]).abs().max() > 1e-3
