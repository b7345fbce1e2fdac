"""Dropout by the noise's own contract: a sample's mask in a layer is a function of (seed, step, phase, sample, layer), and so the same
however a batch is cut into workers and micro-batches. torch's own masks are drawn for a micro-batch as a whole.

Within `masks` the functions of torch.nn.functional that its layers call are ours. They draw from the samples' streams: 16 bits an element,
four of which a hash gives, so probabilities are multiples of 2**-16. The first dimension must be that of the samples, or of equal shares of
them one after the other ([B * T, ...]); what has another is left to torch's generator, which is seeded for each micro-batch, and so does
depend on the cut. So do recurrent networks and alpha dropout. Attention with dropout keeps a weight for each pair of positions until the
backward pass. docs/adr/0008-dropout-by-sample.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainjobs.noise import Noise

_LEVELS = 1 << 16


@contextmanager
def masks(noise: Noise) -> Iterator[None]:
    """For one micro-batch: its loss, and its backward pass, in which activation checkpointing computes parts of the loss again.

    Not a mode of torch: those are off in what is computed again, and within functions such as multi_head_attention_forward.
    """
    drawn = _Masks(noise)
    before: dict[str, Callable[..., Any]] = {name: getattr(F, name) for name in _OURS}
    try:
        for name, ours in _OURS.items():
            setattr(F, name, ours(drawn, before[name]))
        yield
    finally:
        for name, theirs in before.items():
            setattr(F, name, theirs)


def kept(noise: Noise, layer: int, p: float, shape: Sequence[int]) -> tuple[Tensor, float]:
    """Of a layer (the number of its call) which elements stay, bool [B, *shape], each with probability 1 - p; and by what they are
    multiplied, so that the mean stays."""
    dropped, count = round(p * _LEVELS), math.prod(shape)
    bits = noise.bits(f"dropout.{layer}", -(-count // 4)).view(torch.int16)[:, :count]
    stay = bits >= dropped - _LEVELS // 2 if dropped < _LEVELS else torch.zeros_like(bits, dtype=torch.bool)
    return stay.view(-1, *shape), _LEVELS / (_LEVELS - dropped) if dropped < _LEVELS else 0.0


class _Masks:
    """Counts the calls: the n-th of a loss is layer n."""

    def __init__(self, noise: Noise) -> None:
        self._noise, self._rows = noise, len(noise.samples)
        self._layers: dict[int, int] = {}

    def mask(self, p: float, shape: Sequence[int]) -> tuple[Tensor, float] | None:
        """For a tensor of that shape; None where its first dimension is not the samples'."""
        if not shape or shape[0] % self._rows:
            return None
        # Calls are told apart by torch's generator, which checkpointing sets back: a layer that is computed again has its mask again.
        layer = self._layers.setdefault(int(torch.empty((), dtype=torch.int64).random_()), len(self._layers))
        stay, scale = kept(self._noise, layer, p, (shape[0] // self._rows, *shape[1:]))
        return stay.view(tuple(shape)), scale


def _dropout(drawn: _Masks, torchs: Callable[..., Tensor], *, channels: bool = False) -> Callable[..., Tensor]:
    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        shape = (*input.shape[:2], *(1 for _ in input.shape[2:])) if channels else input.shape
        found = drawn.mask(p, shape) if training and 0.0 < p <= 1.0 else None
        if found is None:
            return torchs(input, p, training, inplace)
        stay, scale = found
        return input.mul_(stay).mul_(scale) if inplace else input * stay * scale

    return dropout


def _channels(drawn: _Masks, torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """dropout1d to 3d: whole channels of [B, C, ...]."""
    return _dropout(drawn, torchs, channels=True)


def _attention(drawn: _Masks, torchs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """scaled_dot_product_attention, as its documentation writes it out."""

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        shape = (*query.shape[:-1], key.shape[-2])
        found = drawn.mask(dropout_p, shape) if dropout_p > 0.0 else None
        if found is None:
            return torchs(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if enable_gqa:
            key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
        scores = query @ key.transpose(-2, -1) * (1.0 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            seen = torch.ones(shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~seen, -math.inf)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        stay, factor = found
        return (scores.softmax(-1) * stay * factor).to(value.dtype) @ value

    return attention


_OURS: dict[str, Callable[[_Masks, Callable[..., Tensor]], Callable[..., Tensor]]] = {
    "dropout": _dropout,
    "dropout1d": _channels,
    "dropout2d": _channels,
    "dropout3d": _channels,
    "scaled_dot_product_attention": _attention,
}
