"""Text in memory, batch by batch: one long line of tokens, every document followed by the end-of-text token, cut into sequences.

Sequence i is tokens[i T : i T + T + 1]: it predicts its last T tokens from its first T, and shares one token with the next, so every
token but the first is predicted exactly once. The tail that fills no sequence is left out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch import Tensor

from trainjobs.api.job import Spec
from trainjobs.data.cache import cached
from trainjobs.data.documents import documents, enough, settings, text_files
from trainjobs.data.files import File, fingerprint
from trainjobs.data.pixels import readonly
from trainjobs.data.sampler import order
from trainjobs.data.source import DataInfo, moved
from trainjobs.data.tokens import Tokenizer, open_tokenizer
from trainjobs.noise import Noise

_VERSION = 1  # of how text becomes tokens; part of the cached files' names


@dataclass(frozen=True)
class TextSource:
    """`sequences` is int32 [info.length + info.heldout, T + 1], a view of the tokens; the last info.heldout are held out."""

    info: DataInfo
    sequences: Tensor

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        indices = order(positions, seed, self.info.length)
        return {"tokens": moved(self.sequences.index_select(0, indices), noise.samples.device).long()}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {"tokens": self.sequences.index_select(0, indices + self.info.length).long()}


def open_text(spec: Spec, cache: Path) -> TextSource:
    """The text of a job. The trained tokenizer and the tokens are kept in `cache`, for each state of the files and each tokenizer."""
    language, field = settings(spec), spec.data.text.field
    files = text_files(spec.data.source)
    kind, size, context = language.tokenizer.type, language.tokenizer.vocabulary_size, language.network.context_length
    name = fingerprint(files, version=_VERSION, field=field, tokenizer=[kind, size] if kind == "bpe" else [kind])
    tokenizer = open_tokenizer(language.tokenizer, documents(files, field), cache / f"tokenizer-{name}.json")
    tokens = _tokens(files, field, tokenizer, cache / f"tokens-{name}.bin")
    length, heldout = enough(len(tokens), context, spec.data)
    info = DataInfo("text", (context,), length, heldout, vocabulary=tokenizer.vocabulary, tokenizer=tokenizer)
    return TextSource(info, tokens.unfold(0, context + 1, context))


def _tokens(files: tuple[File, ...], field: str, tokenizer: Tokenizer, path: Path) -> Tensor:
    """int32 [tokens of all documents], mapped from `path`, which is written if it does not exist: plain int32, little-endian."""

    def write(file: BinaryIO) -> None:
        logging.getLogger(__name__).info("encoding %d files, once, in %s", len(files), path)
        end = np.array([tokenizer.end], dtype="<i4").tobytes()
        for text in documents(files, field):
            file.write(tokenizer.array(text).astype("<i4").tobytes())
            file.write(end)

    if cached(path, write).stat().st_size == 0:  # which cannot be mapped
        return readonly(np.empty(0, dtype=np.int32))
    return readonly(np.memmap(path, dtype="<i4", mode="r"))
