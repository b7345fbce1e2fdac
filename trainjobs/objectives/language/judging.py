"""What completions are worth to a trained model of rewards: its score of each, read at the last token by length.

A completion is scored as a preference's answer is learned (preference.py): what begins a text, the prompt, the completion and an end, of
the reward model's own tokenizer. A prompt of messages is rendered by its own template, with the completion as the answer. What was cut off
before its end is scored like any other; a special token that is written out as text could pretend to be a turn, so it is left out there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.data.encoding import Encoder
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer

TOGETHER = 8  # rows in a pass: as many passes on every rank, which has as many completions


@dataclass(frozen=True)
class Judge:
    """`network(input_ids=..., last=...)` is a Scored network, frozen. `longest` is how many tokens it takes, None: any number."""

    network: nn.Module
    encoder: Encoder
    tokenizer: PretrainedTokenizer
    longest: int | None
    uri: str
    where: str

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str], step: int, device: torch.device) -> list[float]:
        """A number for each; a prompt is a text, or a list of messages. JobError GTJ0221."""
        rows = [self._row(prompt, completion, step) for prompt, completion in zip(prompts, completions, strict=True)]
        found: list[float] = []
        for start in range(0, len(rows), TOGETHER):
            part = rows[start : start + TOGETHER]
            lengths = torch.tensor([len(row) for row in part], device=device)
            tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in part], batch_first=True, padding_value=self.tokenizer.end)
            with torch.no_grad():
                scores: Tensor = self.network(input_ids=tokens.to(device), last=lengths)
            found += scores.float().tolist()
        if bad := [at for at, value in enumerate(found) if not torch.tensor(value).isfinite()]:
            raise self._failed(step, f"its score is {found[bad[0]]}", "look at the reward model")
        return found

    def _row(self, prompt: Any, completion: str, step: int) -> list[int]:
        if isinstance(prompt, list):
            for token in self._specials:
                completion = completion.replace(token, "")
        ((tokens, _),) = self.encoder.pair({"prompt": prompt, "completion": completion}, self.uri)
        if self.longest is not None and len(tokens) > self.longest:
            why = f"a prompt with its completion has {len(tokens)} of its tokens, and it takes {self.longest}"
            raise self._failed(step, why, "shorten prompts, lower maxCompletion, or take a reward model of a longer context")
        return tokens

    @property
    def _specials(self) -> list[str]:
        return [str(self.tokenizer.inner.id_to_token(number)) for number in sorted(self.tokenizer.special)]

    def _failed(self, step: int, why: str, how: str) -> JobError:
        return JobError("GTJ0221", f"a reward model of {self.where} failed at step {step + 1}", where=self.uri, why=why, how=how)
