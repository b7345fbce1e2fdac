"""Which tokens a token sees, where a row holds several documents or begins with filling.

The masks are made here and given to the network whole, bool [B, 1, L, L], True where row's token sees column's: networks that are told of
positions alone see across documents (causal_sdpa, see models/attention.py), or stop looking for documents once they are given any other
mask. A token always sees itself, so that none sees nothing: the softmax over nothing is no number, and would spread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from trainjobs.models.attention import BLOCKS

Masks = Callable[[Tensor], dict[str, Any]]  # arguments of a network for rows of several documents, int64 [B, L]


def of_documents(documents_BL: Tensor) -> Tensor:
    """bool [B, 1, L, L]: a token sees its own document, up to itself."""
    length = documents_BL.shape[1]
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=documents_BL.device).tril()
    return ((documents_BL[:, :, None] == documents_BL[:, None, :]) & causal_LL)[:, None]


def behind_filling(filling_B: Tensor, length: int, seen: int) -> Tensor:
    """bool [B, 1, length, seen]: the last `length` of `seen` tokens of rows that begin with `filling` tokens of no meaning."""
    columns_S = torch.arange(seen, device=filling_B.device)
    rows_L = columns_S[seen - length :]
    causal_LS = columns_S[None, :] <= rows_L[:, None]
    itself_LS = columns_S[None, :] == rows_L[:, None]
    real_BS = columns_S[None, :] >= filling_B[:, None]
    return ((causal_LS[None] & real_BS[:, None, :]) | itself_LS[None])[:, None]


def dense(documents_BL: Tensor) -> dict[str, Any]:
    """Of scaled dot-product attention."""
    return {"attention_mask": of_documents(documents_BL)}


def blocks(documents_BL: Tensor) -> dict[str, Any]:
    """Of FlexAttention: the same mask, of which blocks that hold nothing are left out."""
    return {BLOCKS: block_mask(documents_BL)}


def block_mask(documents_BL: Tensor) -> BlockMask:
    def seen(row: Tensor, head: Tensor, asks: Tensor, told: Tensor) -> Tensor:
        return (asks >= told) & (documents_BL[row, asks] == documents_BL[row, told])

    size, length = documents_BL.shape
    return create_block_mask(seen, size, None, length, length, device=str(documents_BL.device))


def bounds(documents_BL: Tensor) -> dict[str, Any]:
    """Of a kernel for sequences of unequal length: where documents begin, rows one behind the other, and the last one ends. What rows are
    filled up with is a document as well."""
    size, length = documents_BL.shape
    first_BL = torch.ones_like(documents_BL, dtype=torch.bool)
    first_BL[:, 1:] = documents_BL[:, 1:] != documents_BL[:, :-1]
    starts = first_BL.flatten().nonzero().flatten().to(torch.int32)
    ends = torch.nn.functional.pad(starts, (0, 1), value=size * length)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": length, "max_length_k": length}
