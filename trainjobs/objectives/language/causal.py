"""Causal language models: tokens w_0 ... w_T of a sequence, each predicted from those before it.

L = -(1 / (B T)) sum_b sum_{i=1..T} log p(w_i | w_0 ... w_{i-1}),   perplexity = exp(L)

Bengio et al., "A neural probabilistic language model", 2003; the cross-entropy is computed from float32 logits, in nats per token.
Every sequence is full: there is no padding and nothing is masked, so the mean of micro-batches is the mean of the batch.

Sampling draws each token from the model's distribution at temperature 1, from an end-of-text token on, or from the tokens of a prompt
behind it, by inverting the cumulative distribution at a uniform number. Keys and values of earlier tokens are kept, so n tokens cost n
passes of one token each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.evaluation import LONGEST_SAMPLE
from trainjobs.data.tokens import Tokenizer, up_to_end
from trainjobs.models.generation import draw
from trainjobs.objectives.phase import Batch, Phase, Samples, over


@dataclass(frozen=True)
class LanguageObjective:
    """`model(input_ids=...)` is one of transformers' causal models."""

    model: nn.Module
    tokenizer: Tokenizer
    context_length: int
    temperature: float = 1.0

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="model", loss=self.cross_entropy),)

    @property
    def highest_stage(self) -> int:
        return 3

    def cross_entropy(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss = self._loss(batch.data["tokens"])
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Per token. Perplexity is the exponential of the mean over all of them."""
        tokens_BT = batch.data["tokens"]
        return {"loss": over(self._loss(tokens_BT), tokens_BT[:, 1:].numel())}

    def _loss(self, tokens_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self.model(input_ids=tokens_BT[:, :-1]).logits
        return F.cross_entropy(logits_BTV.float().flatten(0, 1), tokens_BT[:, 1:].flatten())

    def sample(self, batch: Batch) -> Samples:
        """Texts from their beginning, or what follows a "prompt", int64 [B, P], P below the context length."""
        noise, count = batch.noise, batch.size
        start = torch.full((count, 1), self.tokenizer.start, device=noise.samples.device)
        if "prompt" in batch.data:
            start = torch.cat([start, batch.data["prompt"]], dim=1)
        length = min(self.context_length - start.shape[1] + 1, LONGEST_SAMPLE)
        uniform_BT = noise.uniform("tokens", length)
        next_B1 = start
        drawn: list[Tensor] = []
        past: Any = None
        for i in range(length):  # All of it, even when every text has ended: ranks must make the same calls.
            output = self.model(input_ids=next_B1, past_key_values=past, use_cache=True)
            past = output.past_key_values
            next_B1 = draw(output.logits[:, -1].float() / self.temperature, uniform_BT[:, i : i + 1])
            drawn.append(next_B1)
        return Samples(texts=tuple(self._text(row) for row in torch.cat(drawn, dim=1).tolist()))

    def _text(self, tokens: list[int]) -> str:
        """The text up to the first token at which one ends."""
        return self.tokenizer.decode(up_to_end(self.tokenizer, tokens))
