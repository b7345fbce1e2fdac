"""Text in memory, batch by batch: one long line of tokens, every document followed by the end-of-text token, cut into sequences.

Sequence i is tokens[i T : i T + T + 1]: it predicts its last T tokens from its first T, and shares one token with the next, so every
token but the first is predicted exactly once. The tail that fills no sequence is left out. What is held out makes a line of its own.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch import Tensor

from trainjobs.api.job import Spec
from trainjobs.data.cache import cached
from trainjobs.data.documents import PIECE, divided, documents, enough, named, settings, text_files
from trainjobs.data.files import File, fingerprint
from trainjobs.data.holdout import Rule
from trainjobs.data.pixels import readonly
from trainjobs.data.sampler import order
from trainjobs.data.source import DataInfo, moved
from trainjobs.data.tokens import Tokenizer, open_tokenizer, read_tokenizer
from trainjobs.noise import Noise

_VERSION = 1  # of how text becomes tokens; part of the cached files' names
_HEAD = 16  # bytes
_PIECES = 2  # held-out pieces that are expected at least where text is divided by name; fewer would be a matter of luck


@dataclass(frozen=True)
class TextSource:
    """`sequences` is int32 [info.length, T + 1], `held` int32 [info.heldout, T + 1]: views of the tokens."""

    info: DataInfo
    sequences: Tensor
    held: Tensor

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        indices = order(positions, seed, self.info.length)
        return {"tokens": moved(self.sequences.index_select(0, indices), noise.samples.device).long()}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {"tokens": self.held.index_select(0, indices).long()}


def open_text(spec: Spec, cache: Path, rule: Rule, trained: bytes | None = None) -> TextSource:
    """The text of a job. The trained tokenizer and the tokens are kept in `cache`, for each state of the files and each tokenizer.

    `trained` is the tokenizer of a run that goes on: its tokens mean to the network what they meant when it learned them, which those of a
    tokenizer trained on a text that has grown by a line would not.
    """
    language, field, holdout = settings(spec), spec.data.text.field, spec.data.holdout
    files = text_files(spec.data.uri)
    kind, size, context = language.tokenizer.type, language.tokenizer.vocabulary_size, language.network.context_length
    asked: list[object]
    if kind == "bpe" and trained is not None:
        tokenizer, asked = read_tokenizer(trained), [kind, hashlib.sha256(trained).hexdigest()]
    else:
        asked = [kind, size] if kind == "bpe" else [kind]
        name = fingerprint(files, version=_VERSION, field=field, tokenizer=asked)
        tokenizer = open_tokenizer(language.tokenizer, documents(files, field), cache / f"tokenizer-{name}.json")

    def kept(**more: object) -> Path:
        return cache / f"tokens-{fingerprint(files, version=_VERSION, field=field, tokenizer=asked, **more)}.bin"

    both = None
    if rule == "name" and holdout > 0:
        both = _sides(files, field, tokenizer, holdout, context, kept(holdout=holdout, piece=PIECE))
    if both is None:  # nothing held out, or too little text to leave it to chance: the last sequences
        tokens = _tokens(files, field, tokenizer, kept())
        length, heldout = enough(len(tokens), context, spec.data)
        rows = tokens.unfold(0, context + 1, context)
        both = rows[:length], rows[length : length + heldout]
    sequences, held = both
    info = DataInfo("text", (context,), len(sequences), len(held), vocabulary=tokenizer.vocabulary, tokenizer=tokenizer)
    return TextSource(info, sequences, held)


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


def _sides(
    files: tuple[File, ...], field: str, tokenizer: Tokenizer, holdout: float, context: int, path: Path
) -> tuple[Tensor, Tensor] | None:
    """The sequences of the parts that are trained on, and of those held out, by name; None where there is too little text for that.

    `path` holds two int64, the tokens of the first and the number of pieces, then the tokens of the first, then those of the second.
    """

    def write(file: BinaryIO) -> None:
        logging.getLogger(__name__).info("encoding %d files, once, in %s", len(files), path)
        end, aside, trained, pieces = np.array([tokenizer.end], dtype="<i4").tobytes(), list[bytes](), 0, 0
        file.write(bytes(_HEAD))
        for name, text in named(files, field):
            pieces += -(-len(text) // PIECE)
            for is_held, part in divided(name, text, holdout):
                row = tokenizer.array(part).astype("<i4").tobytes() + end
                if is_held:
                    aside.append(row)
                else:
                    trained += file.write(row) // 4
        for row in aside:
            file.write(row)
        file.seek(0)
        file.write(np.array([trained, pieces], dtype="<i8").tobytes())

    trained, pieces = np.fromfile(cached(path, write), dtype="<i8", count=2).tolist()
    if pieces * min(holdout, 1 - holdout) < _PIECES:
        return None
    tokens = readonly(np.memmap(path, dtype="<i4", mode="r", offset=_HEAD))
    sides = tokens[:trained], tokens[trained:]
    if min(map(len, sides)) < context + 1:
        return None
    first, second = (side.unfold(0, context + 1, context) for side in sides)
    return first, second
