"""Pairs of answers of which one is better, and prompts whose completions are scored, batch by batch.

A batch of pairs: "tokens" and "labels" int64 [B, 2, L] (see answers.py), the chosen answer first, and "lengths" int64 [B, 2], how many
tokens each has of its own, its end included: nothing is predicted from that one, but a reward is read there. A batch of prompts: "prompt"
int64 [B, P], filled up behind to the longest of all, "prompt_length" int64 [B], and "columns", uint8 [B, W], the other columns of the
record as JSON, filled up with 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trainjobs.data.answers import NOT_LEARNED, Numbers, filled, prompts
from trainjobs.data.numbered_sequences import NumberedSource, sides
from trainjobs.data.sequences import Sequences
from trainjobs.data.source import DataInfo


@dataclass(frozen=True, eq=False)
class PreferenceSource(NumberedSource):
    """Pair n is the sequences 2 n and 2 n + 1."""

    def conditions(self, rows: Tensor) -> dict[str, Tensor]:
        """The prompts of held-out pairs, of those that leave room for an answer."""
        numbers, stops = self._prompts
        if not len(numbers):
            return {}
        at = rows.numpy() % len(numbers)
        return prompts(self.sequences, numbers[at], stops[at], int(stops.max()), self.pad)

    def _rows(self, pairs: Numbers) -> dict[str, Tensor]:
        own = self.sequences
        numbers = np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1)
        bounds = [(int(own.starts[number]), int(own.starts[number + 1])) for number in numbers]
        width = max(stop - start for start, stop in bounds)
        tokens = filled([own.tokens[start:stop] for start, stop in bounds], width, self.pad)
        labels = [np.where(own.learned[start + 1 : stop], own.tokens[start + 1 : stop], NOT_LEARNED) for start, stop in bounds]
        lengths = np.array([stop - start for start, stop in bounds], dtype=np.int64)
        found = {"tokens": tokens, "labels": filled(labels, width, NOT_LEARNED), "lengths": lengths}
        return {name: torch.from_numpy(value).view(len(pairs), 2, *value.shape[1:]) for name, value in found.items()}

    @cached_property
    def _prompts(self) -> tuple[Numbers, Numbers]:
        own, found = self.sequences, []
        for number in (2 * self._shown).tolist():
            stop = int(np.argmax(own.learned[own.starts[number] : own.starts[number + 1]]))
            if 1 < stop <= self.info.shape[0] // 2:
                found.append((number, stop))
        both = np.array(found, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]


@dataclass(frozen=True, eq=False)
class PromptSource(NumberedSource):
    """Every prompt stands for `generations` samples in a row: those of a group lie together in the stream, whatever the batch."""

    generations: int

    def conditions(self, rows: Tensor) -> dict[str, Tensor]:
        found = super().conditions(rows)
        return {name: found[name] for name in ("prompt", "prompt_length")}

    def _at(self, positions: Tensor, seed: int) -> Numbers:
        return super()._at(positions.div(self.generations, rounding_mode="floor"), seed)

    def _rows(self, numbers: Numbers) -> dict[str, Tensor]:
        own = self.sequences
        found = prompts(own, numbers, own.lengths[numbers], int(own.lengths.max()), self.pad)
        texts = np.zeros((len(numbers), int(np.diff(own.offsets).max(initial=0))), np.uint8)
        for row, number in enumerate(numbers):
            text = own.texts[own.offsets[number] : own.offsets[number + 1]]
            texts[row, : len(text)] = text
        return {**found, "columns": torch.from_numpy(texts)}


def open_preferences(sequences: Sequences, info: DataInfo, pad: int) -> PreferenceSource:
    return PreferenceSource(*sides(sequences, info), pad)


def open_prompts(sequences: Sequences, info: DataInfo, generations: int, pad: int) -> PromptSource:
    return PromptSource(*sides(sequences, info, times=generations), pad, generations)
