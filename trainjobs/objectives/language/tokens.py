"""What a causal network says of tokens: their cross-entropy, and their log-probabilities.

    L = -(1 / N) sum_i (1 - e) log p(w_i | w_<i) + (e / V) sum_v log p(v | w_<i),   over the N tokens that are learned

e is label smoothing (Szegedy et al., 2016, arXiv 1512.00567), over labels that are learned only. Logits become float32 before anything is
computed of them. By pieces, [tokens, vocabulary] exists for so many tokens at a time, forward and backward, and tokens that are not learned
never reach the last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainjobs.data.answers import NOT_LEARNED
from trainjobs.objectives.language.attention import Masks, dense


def inputs(data: Mapping[str, Tensor], masks: Masks = dense) -> dict[str, Any]:
    """The arguments of a network of transformers for a batch of answers.py; rows of one document each need no mask, as nothing sees what
    they are filled up with."""
    found: dict[str, Any] = {"input_ids": data["tokens"]}
    if "documents" in data:
        found |= {"position_ids": data["positions"], **masks(data["documents"])}
    return found


def summed_loss(model: nn.Module, arguments: Mapping[str, Any], labels_BL: Tensor, smoothing: float, chunk: int | None) -> Tensor:
    """The sum of the losses of all labels but NOT_LEARNED, float32; 0 where there is none."""
    if chunk is None:
        logits_BLV: Tensor = model(**arguments).logits
        return _summed(logits_BLV.flatten(0, 1), labels_BL.flatten(), smoothing)
    hidden_NH, labels_N, head = _learned(model, arguments, labels_BL)
    given = head.forward

    def of_piece(hidden_CH: Tensor, labels_C: Tensor) -> Tensor:
        return _summed(given(hidden_CH), labels_C, smoothing)

    def by_pieces(hidden_NH: Tensor) -> Tensor:
        total = hidden_NH.new_zeros((), dtype=torch.float32)
        for start in range(0, max(1, len(labels_N)), chunk):
            total = total + checkpoint(of_piece, hidden_NH[start : start + chunk], labels_N[start : start + chunk], use_reentrant=False)
        return total

    # All pieces in one pass of the layer: at ZeRO stage 3 a pass gathers its weights from all ranks, which have other numbers of pieces.
    with _instead(head, by_pieces):
        summed: Tensor = head(hidden_NH)
    return summed


def log_probabilities(logits_BLV: Tensor, labels_BL: Tensor, temperature: float = 1.0) -> Tensor:
    """float32 [B, L]: log p(label), 0 where nothing is learned."""
    learned_BL = labels_BL != NOT_LEARNED
    logits_BLV = logits_BLV.float() / temperature
    chosen_BL = logits_BLV.gather(2, labels_BL.clamp(min=0)[:, :, None])[:, :, 0]
    return torch.where(learned_BL, chosen_BL - logits_BLV.logsumexp(dim=2), 0.0)


def _learned(model: nn.Module, arguments: Mapping[str, Any], labels_BL: Tensor) -> tuple[Tensor, Tensor, nn.Module]:
    """(hidden states [N, H] of tokens whose labels are learned, these labels [N], the last layer). The network itself is called, for no
    logits at all: at ZeRO stage 3 its weights are gathered as it is passed."""
    none = torch.zeros(0, dtype=torch.int64, device=labels_BL.device)
    network: Any = model
    hidden_BLH = network(**arguments, logits_to_keep=none, output_hidden_states=True).hidden_states[-1]
    learned_BL = labels_BL != NOT_LEARNED
    return hidden_BLH[learned_BL], labels_BL[learned_BL], network.get_output_embeddings()


@contextmanager
def _instead(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The module, computing something else; what hooks do around it stays."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def _summed(logits_NV: Tensor, labels_N: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(logits_NV.float(), labels_N, ignore_index=NOT_LEARNED, reduction="sum", label_smoothing=smoothing)
