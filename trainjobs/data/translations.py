"""Pairs of texts of which one becomes the other.

A batch: "source" int64 [B, S], filled up behind, and "seen" int64 [B, S], 1 where it has a token; "tokens" int64 [B, T], what a decoder
reads, and "labels" int64 [B, T], what it is to write: "tokens" are the labels, moved on by one behind the token from which a decoder
writes (transformers: shift_tokens_right). Filled up is by length, never by a token's number: labels are NOT_LEARNED there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainjobs.data.answers import NOT_LEARNED, Numbers, filled
from trainjobs.data.numbered_sequences import NumberedSource, sides
from trainjobs.data.sequences import Sequences
from trainjobs.data.source import DataInfo


@dataclass(frozen=True, eq=False)
class TranslationSource(NumberedSource):
    """Pair n is the sequences 2 n and 2 n + 1. `start` is what a decoder writes from."""

    start: int

    def units(self, positions: Tensor, seed: int) -> Tensor:
        """int64 [B]: tokens that are written, of each pair."""
        return torch.from_numpy(self.sequences.lengths[2 * self._at(positions, seed) + 1])

    def _rows(self, pairs: Numbers) -> dict[str, Tensor]:
        first, second = ([self._tokens(2 * int(pair) + side) for pair in pairs] for side in (0, 1))
        width = max(map(len, first))
        seen = filled([np.ones(len(row), np.int64) for row in first], width, 0)
        source = {"source": torch.from_numpy(filled(first, width, self.pad)), "seen": torch.from_numpy(seen)}
        return {**source, **written(second, self.start, self.pad)}

    def _tokens(self, number: int) -> Numbers:
        return self.sequences.tokens[self.sequences.starts[number] : self.sequences.starts[number + 1]].astype(np.int64)


def written(targets: list[Numbers], start: int, pad: int) -> dict[str, Tensor]:
    """{"tokens", "labels"} of what is to be written."""
    width = max(map(len, targets))
    before = [np.concatenate([[start], row[:-1]]) for row in targets]
    return {"tokens": torch.from_numpy(filled(before, width, pad)), "labels": torch.from_numpy(filled(targets, width, NOT_LEARNED))}


def open_translations(sequences: Sequences, info: DataInfo, pad: int, start: int) -> TranslationSource:
    return TranslationSource(*sides(sequences, info), pad, start)
