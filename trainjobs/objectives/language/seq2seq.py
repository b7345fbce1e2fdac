"""Sequence to sequence: a text w from what an encoder has read of x, another text or a picture.

L = -(1 / N) sum_i (1 - e) log p(w_i | w_<i, x) + (e / V) sum_v log p(v | w_<i, x),   over the N tokens that are written in the global batch

Sutskever et al., 2014 (arXiv 1409.3215); e is label smoothing (Szegedy et al., 2016), over labels that are there only, as in transformers'
LabelSmoother. The decoder reads the labels moved on by one, behind the token from which it writes. What is written for people to look at is
the likeliest token each time, so it draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.evaluation import LONGEST_SAMPLE
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.tokens import up_to_end
from trainjobs.objectives.language.answers import SHOWN_BETWEEN
from trainjobs.objectives.phase import Batch, Phase, Rows, Samples

REFERENCE = "\n= "  # what was to be written, behind what was


@dataclass(frozen=True)
class Seq2SeqObjective:
    """`model` is one of transformers' encoders with a decoder. It reads "source" and "seen", or "image", float [B, C, H, W] in [-1, 1],
    normalised to `mean` and `deviation` of each channel in [0, 1]."""

    model: nn.Module
    tokenizer: PretrainedTokenizer
    context_length: int
    smoothing: float = 0.0
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    sentinels: bool = False  # are shown: without them nobody knows what a span was written for

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="model", loss=self.cross_entropy, weigh=self.written if self.mean else "units"),)

    @property
    def highest_stage(self) -> int:
        return 3

    def written(self, batch: Batch) -> Tensor:
        """How many tokens are to be written."""
        return (batch.data["labels"] != NOT_LEARNED).sum()

    def cross_entropy(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        total, count = self._sums(batch.data, self.smoothing)
        loss = total / count.clamp(min=1)
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Per token that is written, without smoothing. Perplexity is the exponential of the mean over all of them."""
        total, count = self._sums(batch.data, 0.0)
        return {"loss": (total.double(), count.double())}

    def sample(self, batch: Batch) -> Samples:
        """What it writes for each source, between that and, where it is known, what was to be written."""
        data = batch.data
        read = [""] * batch.size
        if "source" in data:
            rows = zip(data["source"], data["seen"].bool(), strict=True)
            read = [f"{self._text(row[seen].tolist())}{SHOWN_BETWEEN}" for row, seen in rows]
        wanted = [f"{REFERENCE}{text}" for text in self.references(batch)] if "labels" in data else [""] * batch.size
        return Samples(texts=tuple(map("".join, zip(read, self.hypotheses(batch), wanted, strict=True))))

    def hypotheses(self, batch: Batch) -> list[str]:
        """What it writes. Every rank makes as many passes, whatever the batch."""
        return [self._text(row) for row in self.generated(batch.data, min(self.context_length, LONGEST_SAMPLE)).tolist()]

    def references(self, batch: Batch) -> list[str]:
        """What was to be written."""
        return [self._text(row[row != NOT_LEARNED].tolist()) for row in batch.data["labels"]]

    def generated(self, data: Rows, count: int) -> Tensor:
        """int64 [B, count]: the likeliest token each time, keys and values of those before it kept."""
        given = self._given(data)
        rows = len(next(iter(given.values())))
        next_B1 = torch.full((rows, 1), self.tokenizer.decoder_start, device=next(iter(given.values())).device)
        past: Any = None
        found: list[Tensor] = []
        for _ in range(count):
            output = self.model(**given, decoder_input_ids=next_B1, past_key_values=past, use_cache=True)
            if past is None:
                seen = {name: given[name] for name in ("attention_mask",) if name in given}
                given = {"encoder_outputs": (output.encoder_last_hidden_state,), **seen}
            past = output.past_key_values
            next_B1 = output.logits[:, -1].float().argmax(dim=1, keepdim=True)
            found.append(next_B1)
        return torch.cat(found, dim=1)

    def _sums(self, data: Rows, smoothing: float) -> tuple[Tensor, Tensor]:
        logits_BTV: Tensor = self.model(**self._given(data), decoder_input_ids=data["tokens"]).logits
        labels_BT = data["labels"]
        flat = logits_BTV.float().flatten(0, 1), labels_BT.flatten()
        total = F.cross_entropy(*flat, ignore_index=NOT_LEARNED, reduction="sum", label_smoothing=smoothing)
        return total, (labels_BT != NOT_LEARNED).sum()

    def _given(self, data: Rows) -> dict[str, Any]:
        if "source" in data:
            return {"input_ids": data["source"], "attention_mask": data["seen"]}
        mean, deviation = (torch.tensor(each, device=data["image"].device).view(1, -1, 1, 1) for each in (self.mean, self.deviation))
        return {"pixel_values": ((data["image"] + 1) / 2 - mean) / deviation}

    def _text(self, tokens: list[int]) -> str:
        """Up to its end."""
        tokens = up_to_end(self.tokenizer, tokens)
        if self.sentinels:
            return str(self.tokenizer.inner.decode(tokens, skip_special_tokens=False))
        return self.tokenizer.decode(tokens)
