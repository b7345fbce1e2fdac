"""Span corruption: spans of a text are hidden behind sentinels, and written behind the same ones (T5's pretraining).

    text      Thank you for inviting me to your party last week
    source    Thank you <extra_id_0> me to your party <extra_id_1> week </s>
    target    <extra_id_0> for inviting <extra_id_1> last </s>

Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer", 2020 (arXiv 1910.10683), section 3.1.4
and the authors' random_spans_noise_mask. Of n tokens round(n noiseDensity) are hidden, in round(hidden / meanNoiseSpanLength) spans, at
least one of each; the text begins with a token that is kept and ends with one that is hidden. How the hidden and the kept tokens are
divided into as many spans is drawn among all ways alike, from the sample's own noise: anew at every step, and always the same for what is
held out. A text is cut into pieces of so many tokens that a source, with its sentinels and its end, fills contextLength: 568 for 512.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.language import SpanCorruption
from trainjobs.data.answers import Numbers, filled
from trainjobs.data.numbered_sequences import NumberedSource, sides
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.sequences import Sequences
from trainjobs.data.source import DataInfo, moved
from trainjobs.data.translations import written
from trainjobs.noise import Noise


def divided(length: int, settings: SpanCorruption) -> tuple[int, int]:
    """(how many of so many tokens are hidden, in how many spans), of two tokens at least."""
    hidden = min(max(round(length * settings.noise_density), 1), length - 1)
    return hidden, max(1, round(min(hidden, length - hidden) / settings.mean_noise_span_length))


def longest(context: int, before: int, settings: SpanCorruption) -> int:
    """Of how many tokens a piece consists at most, so that neither its source nor its target is longer than `context`; `before` is how many
    tokens stand in front of every source."""

    def needed(length: int) -> int:
        hidden, spans = divided(length, settings)
        return max(before + length - hidden + spans + 1, hidden + spans + 1)

    return bisect_right(range(2, 2 * context), context, key=needed) + 1


def segments(items: int, parts: int, chance: npt.NDArray[np.float32]) -> Numbers:
    """int64 [parts]: how many of so many items each part has, one at least; `chance` is uniform, one for each border at least."""
    borders = np.sort(np.argsort(chance[: items - 1], kind="stable")[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], borders, [items]]))


def hiding(length: int, settings: SpanCorruption, kept: npt.NDArray[np.float32], hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """bool [length]: which tokens are hidden. `kept` and `hidden` are uniform numbers, `length` of each."""
    number, spans = divided(length, settings)
    each = np.stack([segments(length - number, spans, kept), segments(number, spans, hidden)], axis=1).reshape(-1)
    return np.repeat(np.arange(2 * spans) % 2 == 1, each)


def collapsed(tokens: Numbers, gone: npt.NDArray[np.bool_], sentinels: Numbers) -> Numbers:
    """The tokens, with a sentinel in place of each span of those that are `gone`."""
    first = gone & ~np.concatenate([[False], gone[:-1]])
    numbers = (first.cumsum() - 1).clip(min=0)
    found: Numbers = np.where(first, sentinels[numbers], tokens)[first | ~gone]
    return found


@dataclass(frozen=True, eq=False)
class SpanSource(NumberedSource):
    """Records are pieces of two tokens at least. A batch is as translations.py has it."""

    tokenizer: PretrainedTokenizer
    settings: SpanCorruption

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        rows = self._made(self._at(positions, seed), Noise(noise.seed, noise.samples.cpu()))
        return {name: moved(value, noise.samples.device) for name, value in rows.items()}

    def units(self, positions: Tensor, seed: int) -> Tensor:
        """int64 [B]: tokens that are written, of each piece."""
        lengths = self.sequences.lengths[self._at(positions, seed)].tolist()
        return torch.tensor([sum(divided(length, self.settings)) + 1 for length in lengths])

    def _rows(self, numbers: Numbers) -> dict[str, Tensor]:
        """Held out, or shown: the same at every look."""
        return self._made(numbers, Noise.of(0, 0, "spans", torch.from_numpy(numbers)))

    def _made(self, numbers: Numbers, noise: Noise) -> dict[str, Tensor]:
        own, tokenizer = self.sequences, self.tokenizer
        lengths = own.lengths[numbers]
        kept, hidden = (noise.uniform(name, int(lengths.max())).numpy() for name in ("kept", "hidden"))
        sentinels, end = np.array(tokenizer.sentinels, np.int64), np.array([tokenizer.end])
        sources, targets = list[Numbers](), list[Numbers]()
        for row, (number, length) in enumerate(zip(numbers, lengths.tolist(), strict=True)):
            tokens = own.tokens[own.starts[number] : own.starts[number] + length].astype(np.int64)
            gone = hiding(length, self.settings, kept[row], hidden[row])
            sources.append(np.concatenate([np.array(tokenizer.before, np.int64), collapsed(tokens, gone, sentinels), end]))
            targets.append(np.concatenate([collapsed(tokens, ~gone, sentinels), end]))
        width = max(map(len, sources))
        seen = filled([np.ones(len(row), np.int64) for row in sources], width, 0)
        read = {"source": torch.from_numpy(filled(sources, width, self.pad)), "seen": torch.from_numpy(seen)}
        return {**read, **written(targets, tokenizer.decoder_start, self.pad)}


def open_spans(sequences: Sequences, info: DataInfo, tokenizer: PretrainedTokenizer, settings: SpanCorruption) -> SpanSource:
    """JobError GTJ0109 for a tokenizer that has fewer sentinels than spans may be hidden of a piece."""
    most = max(divided(length, settings)[1] for length in {*sequences.lengths.tolist()})
    if (there := len(tokenizer.sentinels)) < most:
        why = f"its tokenizer has {there} (<extra_id_0> and so on), and up to {most} spans are hidden of a text"
        how = "lower language.network.contextLength or raise meanNoiseSpanLength" if there else "take a model that was trained so: T5"
        raise JobError("GTJ0109", "the base has too few sentinels", where=tokenizer.base.uri, why=why, how=how)
    return SpanSource(*sides(sequences, info), tokenizer.pad, tokenizer, settings)
