"""Which tokens a token sees, where a row holds several documents or begins with filling.

The masks are made here and given to the network whole, bool [B, 1, L, L], True where row's token sees column's: networks that are told of
positions alone see across documents (causal_sdpa, see models/transformers.py), or stop looking for documents once they are given any other
mask. A token always sees itself, so that none sees nothing: the softmax over nothing is no number, and would spread.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
