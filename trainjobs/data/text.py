"""Text in memory, batch by batch: one long line of tokens, every document followed by the end-of-text token, cut into sequences.

Sequence i is tokens[i T : i T + T + 1]: it predicts its last T tokens from its first T, and shares one token with the next, so every
token but the first is predicted exactly once. The tail that fills no sequence is left out. What is held out makes a line of its own.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.language import Language
from trainjobs.data.cache import cached
from trainjobs.data.documents import PIECE, Row, Texts, divided, enough, settings
from trainjobs.data.files import fingerprinted
from trainjobs.data.holdout import Rule
from trainjobs.data.job_template import tokenizer_of, unused
from trainjobs.data.pixels import readonly
from trainjobs.data.pretrained import fetched, pinned
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.room import Room
from trainjobs.data.sampler import order
from trainjobs.data.source import DataInfo, moved
from trainjobs.data.tokens import TRAINED, Tokenizer, open_tokenizer, read_tokenizer
from trainjobs.noise import Noise

_VERSION = 2  # of how text becomes tokens; part of the cached files' names
_HEAD = 16  # bytes
_BATCH = 2_000_000  # characters that are encoded at once
_PIECES = 2  # held-out pieces that are expected at least where text is divided by name; fewer would be a matter of luck


@dataclass(frozen=True)
class TextSource:
    """`sequences` is [info.length, T + 1], `held` [info.heldout, T + 1]: views of the tokens, uint16 where all fit, else int32."""

    info: DataInfo
    sequences: Tensor
    held: Tensor

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        indices = order(positions, seed, self.info.length)
        return {"tokens": moved(self.sequences.index_select(0, indices), noise.samples.device).long()}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {"tokens": self.held.index_select(0, indices).long()}

    def numbers(self, positions: Tensor, seed: int) -> Tensor:
        return order(positions, seed, self.info.length)

    def plain(self, numbers: Tensor, *, held: bool) -> dict[str, Tensor]:
        return {"tokens": (self.held if held else self.sequences).index_select(0, numbers).long()}

    def names(self, numbers: Tensor, *, held: bool) -> list[str]:
        return [f"{'held-out ' if held else ''}sequence {number}" for number in numbers.tolist()]


def open_texts(
    spec: Spec,
    parts: Sequence[Texts],
    cache: Path,
    rule: Rule,
    trained: bytes | PretrainedTokenizer | None = None,
    limit: int | None = None,
) -> list[TextSource]:
    """The texts of a job, one source each, with one tokenizer. It and the tokens are kept in `cache`, for each state of the data; those of
    a source may take `limit` bytes, else JobError GTJ0114.

    `trained` is the tokenizer of a base, or of a run that goes on: its tokens mean to the network what they meant when it learned them,
    which those of a tokenizer trained on a text that has grown by a line would not.
    """
    language = settings(spec)
    kind, size = language.tokenizer.type, language.tokenizer.vocabulary_size
    asked: list[object]
    tokenizer: Tokenizer
    if language.base is not None:
        unused(language, "plain text")
        tokenizer = of_base(language, cache, trained)
        asked = ["base", tokenizer.base.files[TRAINED], list(tokenizer.before)]
    elif kind == "bpe" and isinstance(trained, bytes):
        tokenizer, asked = read_tokenizer(trained), [kind, hashlib.sha256(trained).hexdigest()]
    else:
        asked = [kind, size] if kind == "bpe" else [kind]
        name = fingerprinted([texts.key for texts in parts], version=_VERSION, tokenizer=asked)
        every = (text for texts in parts for text in texts.trained())
        tokenizer = open_tokenizer(language.tokenizer, every, cache / f"tokenizer-{name}.json")
    rooms = [Room(limit, part.source, texts.documents) for texts, part in zip(parts, spec.data.parts, strict=True)]
    return [_open(spec, texts, cache, rule, tokenizer, asked, room) for texts, room in zip(parts, rooms, strict=True)]


def of_base(language: Language, cache: Path, trained: bytes | PretrainedTokenizer | None) -> PretrainedTokenizer:
    """The tokenizer of a job's base, which is asked for where nobody has done so."""
    if isinstance(trained, PretrainedTokenizer):
        return trained
    assert language.base is not None
    return tokenizer_of(language, fetched(language.base, pinned(language.base, None), cache, weights=False))


def _open(spec: Spec, texts: Texts, cache: Path, rule: Rule, tokenizer: Tokenizer, asked: list[object], room: Room) -> TextSource:
    context, holdout = settings(spec).network.context_length, spec.data.holdout

    def kept(**more: object) -> Path:
        return cache / f"tokens-{fingerprinted([texts.key], version=_VERSION, tokenizer=asked, **more)}.bin"

    both = None
    if texts.apart:
        both = _sides(texts, tokenizer, holdout, context, kept(apart=True), room)
    elif rule == "name" and holdout > 0:
        both = _sides(texts, tokenizer, holdout, context, kept(holdout=holdout, piece=PIECE), room)
    if both is None and texts.divided:
        why = "too little text was prepared to hold a share out by name"
        raise JobError("GTJ0113", "the text is too short", where=spec.data.uri, why=why, how="train on the text itself, or add text")
    if both is None:  # nothing held out, or too little text to leave it to chance: the last sequences
        tokens = _tokens(texts, tokenizer, kept(), room)
        length, heldout = enough(len(tokens), context, spec.data)
        rows = tokens.unfold(0, context + 1, context)
        both = rows[:length], rows[length : length + heldout]
    sequences, held = both
    info = DataInfo("text", (context,), len(sequences), len(held), vocabulary=tokenizer.vocabulary, tokenizer=tokenizer)
    return TextSource(info, sequences, held)


def _tokens(texts: Texts, tokenizer: Tokenizer, path: Path, room: Room) -> Tensor:
    """The tokens of all documents, mapped from `path`, which is written if it does not exist: one after the other, little-endian."""
    kind = kind_of(tokenizer)

    def write(file: BinaryIO) -> None:
        logging.getLogger(__name__).info("encoding the text, once, in %s", path)
        room.expect(texts.tokens * kind.itemsize)
        rows = texts.ready() if texts.ready else encoded(tokenizer, ((False, text) for _, text, _ in room.reading(texts.read)))
        for _, row in room.taken(_written(rows, kind)):
            file.write(row)

    if cached(path, write).stat().st_size == 0:  # which cannot be mapped
        return readonly(np.empty(0, dtype=kind))
    return readonly(np.memmap(path, dtype=kind, mode="r"))


def _sides(texts: Texts, tokenizer: Tokenizer, holdout: float, context: int, path: Path, room: Room) -> tuple[Tensor, Tensor] | None:
    """The sequences of the parts that are trained on, and of those held out, by name or because their split is; None where there is too
    little text for the first.

    `path` holds two int64, the tokens of the first and the number of pieces, then the tokens of the first, then those of the second.
    """

    kind = kind_of(tokenizer)

    def write(file: BinaryIO) -> None:
        logging.getLogger(__name__).info("%s, once, in %s", "laying out the tokens" if texts.ready else "encoding the text", path)
        trained, pieces = 0, texts.pieces

        def parts() -> Iterator[tuple[bool, str]]:
            nonlocal pieces
            for name, text, apart in room.reading(texts.read):
                pieces += -(-len(text) // PIECE)
                yield from [(apart, text)] if texts.apart else divided(name, text, holdout)

        room.expect(texts.tokens * kind.itemsize)
        file.write(bytes(_HEAD))
        with TemporaryFile(dir=path.parent) as aside:
            for is_held, row in room.taken(_written(texts.ready() if texts.ready else encoded(tokenizer, parts()), kind)):
                if is_held:
                    aside.write(row)
                else:
                    trained += file.write(row) // kind.itemsize
            aside.seek(0)
            shutil.copyfileobj(aside, file, 1 << 24)
        file.seek(0)
        file.write(np.array([trained, pieces], dtype="<i8").tobytes())

    trained, pieces = np.fromfile(cached(path, write), dtype="<i8", count=2).tolist()
    if not texts.apart and pieces * min(holdout, 1 - holdout) < _PIECES:
        return None
    tokens = readonly(np.memmap(path, dtype=kind, mode="r", offset=_HEAD) if path.stat().st_size > _HEAD else np.empty(0, dtype=kind))
    sides = tokens[:trained], tokens[trained:]
    if min(map(len, sides)) < context + 1:
        if texts.apart:
            raise short(len(sides[0]), len(sides[1]), context)
        return None
    first, second = (side.unfold(0, context + 1, context) for side in sides)
    return first, second


def kind_of(tokenizer: Tokenizer) -> np.dtype[np.generic]:
    """Of a token on the disk, little-endian: two bytes where the vocabulary has no more than 65,536, else four."""
    return np.dtype("<u2" if tokenizer.vocabulary <= 1 << 16 else "<i4")


def encoded(tokenizer: Tokenizer, parts: Iterator[tuple[bool, str]]) -> Iterator[Row]:
    """The tokens of each part, what the tokenizer has before a document and the end of text behind them, in order; many parts at once, on
    all cores."""
    before, end = (np.array(tokens, dtype=np.int32) for tokens in (tokenizer.before, [tokenizer.end]))
    while batch := list(_batch(parts)):
        rows = tokenizer.arrays([text for _, text in batch])
        for (is_held, _), row in zip(batch, rows, strict=True):
            yield is_held, np.concatenate([before, row, end])


def _written(rows: Iterator[Row], kind: np.dtype[np.generic]) -> Iterator[tuple[bool, bytes]]:
    for is_held, row in rows:
        yield is_held, row.astype(kind).tobytes()


def _batch(parts: Iterator[tuple[bool, str]]) -> Iterator[tuple[bool, str]]:
    size = 0
    for is_held, text in parts:
        yield is_held, text
        size += len(text)
        if size >= _BATCH:
            return


def short(trained: int, held: int, context: int) -> JobError:
    """GTJ0113: a split fills no sequence."""
    which, tokens = ("trained on", trained) if trained < held else ("held out", held)
    why = f"it has {tokens} tokens, and a sequence has {context} and the one to predict after the last"
    how = "add text, name another split in data.split, or lower language.network.contextLength"
    return JobError("GTJ0113", f"the split that is {which} is too short", where="data.split", why=why, how=how)
