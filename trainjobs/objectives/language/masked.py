"""Masked language models: tokens that are hidden, told from all around them.

L = -(1 / N) sum_{i in M} log p(w_i | w~),   over the N = |M| tokens that are asked for, of all rows of the global batch

Devlin et al., "BERT", 2019 (arXiv 1810.04805), section 3.1: each token of text is in M with probability 0.15, and in w~ the mask stands
in its place in 80 of 100 cases, any token of the vocabulary in 10, the token itself in 10 (transformers:
DataCollatorForLanguageModeling). What begins and ends a text is never in M. Draws are the sample's own, new at every step (Liu et al.,
2019: dynamic masking). Where chance leaves a row without any, the one that was nearest to being asked for is: nothing learned would be no
number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.language import Masking
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.noise import Noise
from trainjobs.objectives.language.answers import SHOWN_BETWEEN
from trainjobs.objectives.phase import Batch, Phase, Samples


@dataclass(frozen=True)
class MaskedObjective:
    """`model(input_ids=..., attention_mask=...).logits` is one of transformers' masked models. `mask` is the token that stands for a hidden
    one, `context` the longest row."""

    model: nn.Module
    tokenizer: PretrainedTokenizer
    mask: int
    context: int
    settings: Masking
    smoothing: float = 0.0

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="model", loss=self.cross_entropy, weigh=self.asked),)

    @property
    def highest_stage(self) -> int:
        return 3

    def asked(self, batch: Batch) -> Tensor:
        """How many tokens are asked for."""
        return (self._hidden(batch)[1] != NOT_LEARNED).sum()

    def cross_entropy(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        total, count = self._sums(batch, self.smoothing)
        loss = total / count.clamp(min=1)
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Per token that is asked for, without smoothing."""
        total, count = self._sums(batch, 0.0)
        return {"loss": (total.double(), count.double())}

    def sample(self, batch: Batch) -> Samples:
        """Texts with tokens hidden, and what the model takes to stand there: the likeliest token for each."""
        tokens_BL, labels_BL = self._hidden(batch)
        told_BL = self._logits(tokens_BL, batch.data["seen"]).argmax(dim=2)
        whole_BL = torch.where(labels_BL != NOT_LEARNED, told_BL, tokens_BL)
        inside = batch.data["maskable"].bool()
        rows = zip(tokens_BL, whole_BL, inside, strict=True)
        return Samples(texts=tuple(f"{self._text(given[mine])}{SHOWN_BETWEEN}{self._text(told[mine])}" for given, told, mine in rows))

    def _text(self, tokens_L: Tensor) -> str:
        return str(self.tokenizer.inner.decode(tokens_L.tolist(), skip_special_tokens=False))

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(what the model sees, what it is asked for)."""
        data = batch.data
        if "labels" in data:  # somebody else has hidden them
            return data["tokens"], data["labels"]
        return hidden(
            data["tokens"], data["maskable"].bool(), batch.noise, self.settings, self.mask, self.tokenizer.vocabulary, self.context
        )

    def _sums(self, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
        tokens_BL, labels_BL = self._hidden(batch)
        logits_BLV = self._logits(tokens_BL, batch.data["seen"])
        flat = logits_BLV.float().flatten(0, 1), labels_BL.flatten()
        total = F.cross_entropy(*flat, ignore_index=NOT_LEARNED, reduction="sum", label_smoothing=smoothing)
        return total, (labels_BL != NOT_LEARNED).sum()

    def _logits(self, tokens_BL: Tensor, seen_BL: Tensor) -> Tensor:
        found: Tensor = self.model(input_ids=tokens_BL, attention_mask=seen_BL).logits
        return found


def hidden(
    tokens_BL: Tensor, maskable_BL: Tensor, noise: Noise, settings: Masking, mask: int, vocabulary: int, context: int
) -> tuple[Tensor, Tensor]:
    """(tokens of which some are hidden, labels: NOT_LEARNED where nothing is asked). A row draws the same whatever it is filled up to."""
    width = tokens_BL.shape[1]
    chance_BL = noise.uniform("asked", context)[:, :width].masked_fill(~maskable_BL, 2.0)
    nearest_BL = F.one_hot(chance_BL.argmin(dim=1), width).bool() & maskable_BL
    asked_BL = (chance_BL < settings.share) | nearest_BL
    how_BL = noise.uniform("how", context)[:, :width]
    other_BL = noise.integers("other", vocabulary, context)[:, :width]
    seen_BL = torch.where(how_BL < settings.replaced + settings.random, other_BL, tokens_BL)
    seen_BL = torch.where(how_BL < settings.replaced, mask, seen_BL)
    return torch.where(asked_BL, seen_BL, tokens_BL), tokens_BL.masked_fill(~asked_BL, NOT_LEARNED)
