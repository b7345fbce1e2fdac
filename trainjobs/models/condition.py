"""What a denoiser is told beside the time: a class, or a text.

class  a row of an embedding, normal with deviation 0.02; the last row stands for no class (Peebles and Xie, "Scalable diffusion models
       with transformers", 2023, arXiv 2212.09748, and the code of Ho and Salimans' guidance, 2022, arXiv 2207.12598)
text   its bytes by a small transformer, whose layers normalise first and look both ways. In front of the bytes stands a token that begins
       every text, so that the empty one, which stands for no text, is a sequence, too. Feature maps attend to all of its states, and the
       first state is added to the time's embedding
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.denoiser import Conditioning
from trainjobs.data.captions import NOTHING

BEGIN = NOTHING + 1
_DEVIATION = 0.02


@dataclass(frozen=True)
class Told:
    """`whole` is float [B, E], for the time's embedding; `states` float [B, L, W] and `there` bool [B, L] what can be attended to, of
    texts alone."""

    whole: Tensor
    states: Tensor | None = None
    there: Tensor | None = None


class ClassCondition(nn.Module):
    """int64 [B] labels, `classes` for none -> Told."""

    def __init__(self, classes: int, embedding: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes + 1, embedding)
        nn.init.normal_(self.table.weight, std=_DEVIATION)

    def forward(self, label_B: Tensor) -> Told:
        return Told(self.table(label_B))


class TextLayer(nn.Module):
    """x + attention(norm x), then x + mlp(norm x), as nn.TransformerEncoderLayer(norm_first=True, activation="gelu") without dropout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BLW: Tensor, there_BL: Tensor) -> Tensor:
        q, k, v = (split(part, self.heads) for part in self.qkv(self.norm1(x_BLW)).chunk(3, dim=-1))
        x = x_BLW + self.out(joined(F.scaled_dot_product_attention(q, k, v, attn_mask=there_BL[:, None, None, :])))
        h: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return h


class TextCondition(nn.Module):
    """int64 [B, L] bytes of texts, NOTHING behind their ends -> Told, of L + 1 states."""

    def __init__(self, given: Conditioning, embedding: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(BEGIN + 1, given.width)
        # A layer of its own: ZeRO stage 3 gathers the weights of what returns tensors, and this module returns more than these.
        self.places = nn.Embedding(given.length + 1, given.width)
        nn.init.normal_(self.tokens.weight, std=_DEVIATION)
        nn.init.normal_(self.places.weight, std=_DEVIATION)
        self.layers = nn.ModuleList([TextLayer(given.width, given.heads) for _ in range(given.layers)])
        self.norm = nn.LayerNorm(given.width)
        self.whole = nn.Linear(given.width, embedding)

    def forward(self, caption_BL: Tensor) -> Told:
        tokens = F.pad(caption_BL, (1, 0), value=BEGIN)
        there = tokens != NOTHING
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            x = layer(x, there)
        states = self.norm(x)
        return Told(self.whole(states[:, 0]), states, there)


class CrossAttention(nn.Module):
    """x + attention of places to the states of a text, which starts as x: its last layer is zero."""

    def __init__(self, channels: int, states: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.keys = nn.Linear(channels, channels, bias=False), nn.Linear(states, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BNC: Tensor, told: Told) -> Tensor:
        """float [B, N, C], what is to be added to the places."""
        assert told.states is not None
        assert told.there is not None
        k, v = (split(part, self.heads) for part in self.keys(told.states).chunk(2, dim=-1))
        mask = told.there[:, None, None, :]
        h: Tensor = self.out(joined(F.scaled_dot_product_attention(split(self.query(x_BNC), self.heads), k, v, attn_mask=mask)))
        return h


def split(x_BNC: Tensor, heads: int) -> Tensor:
    """float [B, heads, N, C / heads]."""
    B, N, C = x_BNC.shape
    return x_BNC.view(B, N, heads, C // heads).transpose(1, 2)


def joined(x_BHND: Tensor) -> Tensor:
    return x_BHND.transpose(1, 2).flatten(2)


def condition(given: Conditioning | None, classes: int, embedding: int) -> nn.Module | None:
    """What embeds the condition, of which there are so many classes."""
    if given is None:
        return None
    return ClassCondition(classes, embedding) if given.type == "class" else TextCondition(given, embedding)
