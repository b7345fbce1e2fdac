"""Drawing tokens from a language model's distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(logits_BV: Tensor, uniform_B1: Tensor) -> Tensor:
    """int64 [B, 1]: the token at which the cumulative distribution passes `uniform`. Double precision, lest a large vocabulary's rare
    tokens fall below the resolution of the sum."""
    cumulative_BV = logits_BV.double().softmax(dim=1).cumsum(dim=1)
    return torch.searchsorted(cumulative_BV, uniform_B1.double() * cumulative_BV[:, -1:], right=True).clamp(max=logits_BV.shape[1] - 1)
