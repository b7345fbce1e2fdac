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

    Not a mode of torch: those are off in what is computed again, and within functions such as multi_head_attention_forward. The functions
    are the same objects each time, and find the micro-batch in _DRAWN: torch.compile would compile anew for others.
    """
    before: dict[str, Callable[..., Any]] = {name: getattr(F, name) for name in _OURS}
    outer = _DRAWN.noise, _DRAWN.rows, _DRAWN.layers
    try:
        _DRAWN.noise, _DRAWN.rows, _DRAWN.layers = noise, len(noise.samples), {}
        for name, ours in _OURS.items():
            setattr(F, name, ours)
        yield
    finally:
        _DRAWN.noise, _DRAWN.rows, _DRAWN.layers = outer
        for name, theirs in before.items():
            setattr(F, name, theirs)


def kept(noise: Noise, layer: int, p: float, shape: Sequence[int]) -> tuple[Tensor, float]:
    """Of a layer (the number of its call) which elements stay, bool [B, *shape], each with probability 1 - p; and by what they are
    multiplied, so that the mean stays."""
    dropped, count = _dropped(p), math.prod(shape)
    bits = noise.bits(f"dropout.{layer}", -(-count // 4)).view(torch.int16)[:, :count]
    stay = bits >= dropped - _LEVELS // 2 if dropped < _LEVELS else torch.zeros_like(bits, dtype=torch.bool)
    return stay.view(-1, *shape), _scale(p)


def _dropped(p: float) -> int:
    """Of 2**16 levels."""
    return round(p * _LEVELS)


def _scale(p: float) -> float:
    return _LEVELS / (_LEVELS - _dropped(p)) if _dropped(p) < _LEVELS else 0.0


class _Drawn:
    """Of the micro-batch whose loss is computed: its noise, its number of rows, and the calls so far: the n-th is layer n."""

    def __init__(self) -> None:
        self.noise: Noise | None = None
        self.rows = 0
        self.layers: dict[int, int] = {}

    def mask(self, p: float, shape: Sequence[int]) -> tuple[Tensor, float]:
        """For a tensor of that shape."""
        assert self.noise is not None
        # Calls are told apart by torch's generator, which checkpointing sets back: a layer that is computed again has its mask again.
        layer = self.layers.setdefault(int(torch.empty((), dtype=torch.int64).random_()), len(self.layers))
        stay, scale = kept(self.noise, layer, p, (shape[0] // self.rows, *shape[1:]))
        return stay.view(tuple(shape)), scale


_DRAWN = _Drawn()
_NAMES = ("dropout", "dropout1d", "dropout2d", "dropout3d", "scaled_dot_product_attention")
_TORCHS: dict[str, Callable[..., Any]] = {name: getattr(F, name) for name in _NAMES}


# Drawn at random, as far as a compiler may know: it is called once for each layer, and not again in the backward pass.
@torch.library.custom_op("gentrain::stay", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def _stay(like: Tensor, p: float, shape: Sequence[int]) -> Tensor:
    """`_Drawn.mask`, bool of `shape`, as one operation into which a compiler does not look. `like` is what is dropped from: a layer's mask
    cannot be asked for before that is there, so the order of layers is that of their computation."""
    return _DRAWN.mask(p, shape)[0].to(like.device)


@_stay.register_fake
def _(like: Tensor, p: float, shape: Sequence[int]) -> Tensor:
    return like.new_empty(shape, dtype=torch.bool)


def _mask(like: Tensor, p: float, shape: Sequence[int]) -> tuple[Tensor, float] | None:
    """For a tensor of that shape; None where its first dimension is not the samples'."""
    if not shape or shape[0] % _DRAWN.rows:
        return None
    if torch.compiler.is_compiling():
        return _stay(like, p, shape), _scale(p)
    return _DRAWN.mask(p, shape)


def _dropout(name: str, *, channels: bool = False) -> Callable[..., Tensor]:
    torchs = _TORCHS[name]

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        shape = (*input.shape[:2], *(1 for _ in input.shape[2:])) if channels else input.shape
        found = _mask(input, p, shape) if training and 0.0 < p <= 1.0 else None
        if found is None:
            return torchs(input, p, training, inplace)  # type: ignore[no-any-return]
        stay, scale = found
        return input.mul_(stay).mul_(scale) if inplace else input * stay * scale

    return dropout


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """scaled_dot_product_attention, as its documentation writes it out."""
    shape = (*query.shape[:-1], key.shape[-2])
    found = _mask(query, dropout_p, shape) if dropout_p > 0.0 else None
    if found is None:
        torchs = _TORCHS["scaled_dot_product_attention"]
        return torchs(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)  # type: ignore[no-any-return]
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


_OURS: dict[str, Callable[..., Tensor]] = {
    "dropout": _dropout("dropout"),
    # Whole channels of [B, C, ...].
    **{name: _dropout(name, channels=True) for name in ("dropout1d", "dropout2d", "dropout3d")},
    "scaled_dot_product_attention": _attention,
}
