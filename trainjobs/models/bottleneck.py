"""Bottleneck adapters behind the attention and the feed-forward layer of every block: y = x + U f(D x).

Houlsby et al., "Parameter-efficient transfer learning for NLP", 2019 (arXiv 1902.00751), section 2.1; f is GELU. D [width / reduction,
width] is N(0, 0.01), U is 0, so at first y = x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ATTENTION = ("attn", "self_attn", "attention", "self_attention")
FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
NAME = "bottleneck"


class Bottleneck(nn.Module):
    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, narrow), nn.Linear(narrow, width)
        nn.init.normal_(self.down.weight, std=0.01)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width]."""
        changed: Tensor = self.up(F.gelu(self.down(x.to(self.down.weight.dtype))))
        return x + changed.to(x.dtype)


def add_bottlenecks(model: nn.Module, width: int, reduction: int) -> list[str]:
    """Add one to each of a model's layers, all else asking for no gradient; the names of the layers."""
    model.requires_grad_(False)
    layers = [(name, layer) for name, layer in model.named_modules() if name.rpartition(".")[2] in (*ATTENTION, *FEED_FORWARD)]
    layers = [(name, layer) for name, layer in layers if any(part.isdigit() for part in name.split("."))]
    for _, layer in layers:
        with torch.device("cpu"):
            layer.add_module(NAME, Bottleneck(width, max(1, width // reduction)))
        layer.register_forward_hook(_changed)
    return [name for name, _ in layers]


def _changed(layer: nn.Module, given: Any, output: Any) -> Any:
    """What the layer gives, or the first of it, with the bottleneck's change."""
    bottleneck = layer.get_submodule(NAME)
    return (bottleneck(output[0]), *output[1:]) if isinstance(output, tuple) else bottleneck(output)
