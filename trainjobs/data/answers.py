"""Records for a language model, batch by batch: completions of prompts, answers of conversations, texts.

A batch is as long as its longest sample, so a micro-batch of short ones costs little. "tokens" int64 [B, L] are those that predict,
filled up with the end-of-text token; "labels" int64 [B, L] the tokens that they are to predict, NOT_LEARNED where nothing is learned.
Where samples hold several sequences, "positions" count from 0 in each, and "documents" says which of the row's sequences a token is
of, from 0 on, -1 behind the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainjobs.data.packing import packed
from trainjobs.data.sampler import order
from trainjobs.data.sequences import Sequences
from trainjobs.data.source import DataInfo, divide, moved
from trainjobs.noise import Noise

NOT_LEARNED = -100  # torch's own
BESIDE = -1
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Sample s consists of the pieces ends[s] to ends[s + 1]: of sequence `of`, the tokens `first` up to `last` predict."""

    of: Numbers
    first: Numbers
    last: Numbers
    ends: Numbers

    @classmethod
    def made(cls, how: str, sequences: Sequences, numbers: Numbers, context: int) -> Samples:
        pieces = packed(how, (sequences.lengths[numbers] - 1).tolist(), context)
        flat = np.array([piece for sample in pieces for piece in sample], dtype=np.int64).reshape(-1, 3)
        ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        return cls(numbers[flat[:, 0]], flat[:, 1], flat[:, 2], ends)

    def __len__(self) -> int:
        return len(self.ends) - 1


@dataclass(frozen=True, eq=False)
class AnswerSource:
    """`packing` is bfd, wrapped or none; `pad` a token that fills up."""

    info: DataInfo
    sequences: Sequences
    train: Samples
    held: Samples
    packing: str
    pad: int

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        rows = self._rows(self.train, order(positions, seed, self.info.length).numpy())
        return {name: moved(value, noise.samples.device) for name, value in rows.items()}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self._rows(self.held, indices.numpy())

    def numbers(self, positions: Tensor, seed: int) -> Tensor:
        """int64 [B], below info.length: which samples are at these positions."""
        return order(positions, seed, self.info.length)

    def plain(self, numbers: Tensor, *, held: bool) -> dict[str, Tensor]:
        return self._rows(self.held if held else self.train, numbers.numpy())

    def names(self, numbers: Tensor, *, held: bool) -> list[str]:
        return [f"{'held-out ' if held else ''}sample {number}" for number in numbers.tolist()]

    def units(self, positions: Tensor, seed: int) -> Tensor:
        """int64 [B]: how many tokens are learned of each sample at these positions."""
        return torch.from_numpy(self._learned[order(positions, seed, self.info.length).numpy()])

    def conditions(self, rows: Tensor) -> dict[str, Tensor]:
        """The beginnings of held-out sequences up to their last answer, of those that leave room for one; {} where all of it is learned."""
        if not len(self._prompts[1]):
            return {}
        numbers, stops = (values[rows.numpy() % len(self._prompts[1])] for values in self._prompts)
        width = int(self._prompts[1].max())
        return prompts(self.sequences, numbers, stops, width, self.pad)

    def _rows(self, samples: Samples, numbers: Numbers) -> dict[str, Tensor]:
        own, several = self.sequences, self.packing != "none"
        spans = [range(samples.ends[number], samples.ends[number + 1]) for number in numbers]
        width = max(int((samples.last[span.start : span.stop] - samples.first[span.start : span.stop]).sum()) for span in spans)
        tokens = np.full((len(spans), width), self.pad, np.int64)
        labels = np.full((len(spans), width), NOT_LEARNED, np.int64)
        places = np.zeros((len(spans), width), np.int64)
        documents = np.full((len(spans), width), BESIDE, np.int64)
        for row, span in enumerate(spans):
            at = 0
            for number, piece in enumerate(span):
                start = own.starts[samples.of[piece]] + samples.first[piece]
                length = int(samples.last[piece] - samples.first[piece])
                stop = at + length
                tokens[row, at:stop] = own.tokens[start : start + length]
                after = slice(start + 1, start + length + 1)
                labels[row, at:stop] = np.where(own.learned[after], own.tokens[after], NOT_LEARNED)
                places[row, at:stop] = np.arange(length)
                documents[row, at:stop] = number
                at = stop
        found = {"tokens": tokens, "labels": labels, **({"positions": places, "documents": documents} if several else {})}
        return {name: torch.from_numpy(value) for name, value in found.items()}

    @cached_property
    def _learned(self) -> Numbers:
        """Of each sample that is trained on."""
        before = np.concatenate([[0], np.cumsum(self.sequences.learned, dtype=np.int64)])
        start = self.sequences.starts[self.train.of]
        pieces = before[start + self.train.last + 1] - before[start + self.train.first + 1]
        return np.add.reduceat(pieces, self.train.ends[:-1])

    @cached_property
    def _prompts(self) -> tuple[Numbers, Numbers]:
        """(sequences, where their last answer begins)."""
        own, found = self.sequences, []
        for number in dict.fromkeys((self.held if len(self.held) else self.train).of.tolist()):
            learned = own.learned[own.starts[number] : own.starts[number + 1]]
            begins = np.flatnonzero(learned[1:] & ~learned[:-1]) + 1
            if len(begins) and 1 < begins[-1] <= self.info.shape[0] // 2:
                found.append((number, int(begins[-1])))
        both = np.array(found, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]


def open_answers(sequences: Sequences, info: DataInfo, packing: str, pad: int, where: str) -> AnswerSource:
    """`info` but for its counts, which are of samples. JobError GTJ0113 where nothing is left to train on."""
    numbers = np.arange(len(sequences.held))
    train, held = (Samples.made(packing, sequences, numbers[side], info.shape[0]) for side in (~sequences.held, sequences.held))
    divide(len(train), 0.0, where, "sample")
    counted = DataInfo(info.kind, info.shape, len(train), len(held), info.vocabulary, info.tokenizer, form=info.form)
    return AnswerSource(counted, sequences, train, held, packing, pad)


def prompts(sequences: Sequences, numbers: Numbers, stops: Numbers, width: int, pad: int) -> dict[str, Tensor]:
    """{"prompt": int64 [B, width], "prompt_length": int64 [B]}: the first `stops` tokens of these sequences, filled up behind."""
    made = np.full((len(numbers), width), pad, np.int64)
    for row, (number, stop) in enumerate(zip(numbers, stops, strict=True)):
        start = sequences.starts[number]
        made[row, :stop] = sequences.tokens[start : start + stop]
    return {"prompt": torch.from_numpy(made), "prompt_length": torch.from_numpy(np.array(stops, dtype=np.int64))}


def filled(rows: Sequence[npt.NDArray[np.signedinteger[Any]]], width: int, value: int) -> npt.NDArray[np.int64]:
    made = np.full((len(rows), width), value, np.int64)
    for number, row in enumerate(rows):
        made[number, : len(row)] = row
    return made
