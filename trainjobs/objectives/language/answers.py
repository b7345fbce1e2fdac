"""Supervised fine-tuning: the cross-entropy of tokens that are learned, each predicted from those before it in its document.

The loss is the mean over the learned tokens of the global batch (see tokens.py for the equation). Their number is known of every sample,
so however the batch is cut into micro-batches and ranks, one of which may have none, each token counts the same. A mean of means would
not: with answers of 4 to 21 tokens it is off by a quarter of the gradient and more (huggingface/transformers#34191).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainjobs.api.evaluation import LONGEST_SAMPLE
from trainjobs.api.language import LanguageLoss
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import Tokenizer, up_to_end
from trainjobs.objectives.language.attention import Masks, dense
from trainjobs.objectives.language.drawing import complete
from trainjobs.objectives.language.tokens import inputs, summed_loss
from trainjobs.objectives.phase import Batch, Phase, Samples

SHOWN_BETWEEN = "\n→ "  # a prompt, and what the model made of it


@dataclass(frozen=True)
class AnswersObjective:
    """`model(input_ids=...)` is one of transformers' causal models. A batch of one stream (see data/text.py) is learned whole;
    `masks` say of rows of several documents which token sees which."""

    model: nn.Module
    tokenizer: Tokenizer
    context_length: int
    settings: LanguageLoss
    stream: bool = False
    masks: Masks = dense

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="model", loss=self.cross_entropy, weigh=None if self.stream else "units"),)

    @property
    def highest_stage(self) -> int:
        return 3

    def cross_entropy(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        total, count = self._sums(batch.data, self.settings.label_smoothing)
        loss = total / count.clamp(min=1)
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Per learned token, without smoothing. Perplexity is the exponential of the mean over all of them."""
        total, count = self._sums(batch.data, 0.0)
        return {"loss": (total.double(), count.double())}

    def sample(self, batch: Batch) -> Samples:
        """Completions of the prompts that the data has, else texts of their own."""
        return drawn(self.model, self.tokenizer, self.context_length, batch)

    def _sums(self, data: Mapping[str, Tensor], smoothing: float) -> tuple[Tensor, Tensor]:
        if self.stream:
            data = {"tokens": data["tokens"][:, :-1], "labels": data["tokens"][:, 1:]}
        labels_BL = data["labels"]
        return summed_loss(self.model, inputs(data, self.masks), labels_BL, smoothing, self.settings.chunk), (
            labels_BL != NOT_LEARNED
        ).sum()


def drawn(model: nn.Module, tokenizer: Tokenizer, context_length: int, batch: Batch, temperature: float = 1.0) -> Samples:
    """A completion for each row's prompt, behind it; a text of its own where there is none."""
    device = batch.noise.samples.device
    prompt_BP = batch.data.get("prompt", torch.full((batch.size, 1), tokenizer.end, device=device))
    length_B = batch.data.get("prompt_length", torch.ones(batch.size, dtype=torch.int64, device=device))
    room = max(1, min(context_length - prompt_BP.shape[1], LONGEST_SAMPLE))
    tokens_BT, _ = complete(model, prompt_BP, length_B, batch.noise.uniform("tokens", room), tokenizer.ends, temperature)
    return Samples(texts=tuple(texts(tokenizer, batch.data.get("prompt"), length_B, tokens_BT)))


def texts(tokenizer: Tokenizer, prompt_BP: Tensor | None, length_B: Tensor, tokens_BT: Tensor) -> list[str]:
    """Prompts and their completions, as people read them."""
    made = [tokenizer.decode(up_to_end(tokenizer, row)) for row in tokens_BT.tolist()]
    if prompt_BP is None:
        return made
    asked = [said(tokenizer, row[:length]) for row, length in zip(prompt_BP.tolist(), length_B.tolist(), strict=True)]
    return [f"{prompt.rstrip()}{SHOWN_BETWEEN}{text}" for prompt, text in zip(asked, made, strict=True)]


def said(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """The text of tokens, a line for each turn."""
    turns: list[list[int]] = [[]]
    for token in tokens:
        if token in tokenizer.ends:
            turns.append([])
        else:
            turns[-1].append(token)
    return "\n".join(tokenizer.decode(turn) for turn in turns if turn)
