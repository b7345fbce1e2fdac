"""The attention of causal language models, by what a batch says of its documents.

transformers' scaled dot-product attention under a name of our own. Under its name "sdpa", each forward pass asks the device whether the
positions are those of packed sequences, and waits for the answer; under a name it knows no mask for, it makes none, and the attention is
causal by the flag of PyTorch's kernel. Rows of several documents bring with them which token sees which: a mask of bools for the same
kernel; blocks for FlexAttention, which passes over those that nothing sees (Dong et al., 2024, arXiv 2412.05496); or where documents begin,
for a kernel of sequences of unequal length (Dao, 2023, arXiv 2307.08691), which computes nothing across them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

NAME = "causal_sdpa"
BLOCKS = "document_blocks"  # the argument of a network's call that is a BlockMask


def register() -> str:
    """The name by which transformers knows it from then on."""
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **told: Any) -> tuple[Tensor, Any]:
    """As transformers calls it, with what a network's call was told beside: query [B, H, L, D], key and value [B, K, L, D] with K dividing
    H; returns [B, L, H, D]. Blocks are no `attention_mask`: some networks look at that before it comes here."""
    if told.get(BLOCKS) is not None:
        return by_blocks(query, key, value, told[BLOCKS], told.get("scaling")), None
    if told.get("cu_seq_lens_q") is not None:
        return by_bounds(query, key, value, told["cu_seq_lens_q"], told["max_length_q"], told.get("scaling")), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    found: tuple[Tensor, Any] = sdpa_attention_forward(module, query, key, value, attention_mask, **told)
    return found


def by_blocks(query: Tensor, key: Tensor, value: Tensor, blocks: BlockMask, scale: float | None) -> Tensor:
    found: Any = _kernel(query.device.type)(query, key, value, block_mask=blocks, scale=scale, enable_gqa=query.shape[1] != key.shape[1])
    return found.transpose(1, 2).contiguous()  # type: ignore[no-any-return]


def by_bounds(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float | None) -> Tensor:
    """`bounds` int32 [N + 1]: where documents begin and the last one ends, of all rows one behind the other."""
    from torch.nn.attention.varlen import varlen_attn

    batch, heads, length, width = query.shape
    q, k, v = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
    grouped = heads != key.shape[1]
    found: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=grouped)
    return found.view(batch, length, heads, width)  # type: ignore[no-any-return]


@cache
def _kernel(device: str) -> Any:
    """Compiled where there is a kernel to be made; elsewhere all scores are computed, and masked."""
    return torch.compile(flex_attention) if device == "cuda" else flex_attention
