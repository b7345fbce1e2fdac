"""What a teacher says of every learned token of the data, computed once: its likeliest next tokens, and how likely all others are together.

Samples are in parts of PART, each a file by itself, so that several processes make them, and work that was interrupted goes on where it
stopped. The file: int64 [1 + samples], how many samples it has and how many learned tokens each of them, then a row for each of those:
"tokens" int32 [k], "logs" float32 [k], the logarithms of their probabilities, and "rest" float32, that of all others together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainjobs.data.answers import NOT_LEARNED, AnswerSource
from trainjobs.data.cache import cached
from trainjobs.data.mixed import Mixed
from trainjobs.data.source import Conditional, Counted, DataInfo, Numbered, Source, moved
from trainjobs.data.text import TextSource
from trainjobs.noise import Noise

VERSION = 1  # of what is written; part of a file's name
PART = 256  # samples of a file
TOGETHER = 8  # samples that pass the teacher together, at most
BYTES = 2**30  # of their logits

TOKENS, LOGS, REST = "teacher_tokens", "teacher_logs", "teacher_rest"  # of a batch
# Of samples as in a batch: of their learned tokens, in order, (tokens int64 [N, k], logs float32 [N, k], rest float32 [N]).
Teacher = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Table:
    """Files of samples 0 to PART - 1 and so on, which are read where a sample is asked for: there may be more than a process may have open.
    `ends` are of each file's samples, the rows up to theirs and with them."""

    paths: tuple[Path, ...]
    ends: tuple[npt.NDArray[np.int64], ...]
    k: int

    @classmethod
    def read(cls, paths: Sequence[Path], k: int) -> Table:
        counts = (np.fromfile(path, "<i8", count=int(np.fromfile(path, "<i8", count=1)[0]), offset=8) for path in paths)
        return cls(tuple(paths), tuple(np.cumsum([0, *each], dtype=np.int64) for each in counts), k)

    def of(self, number: int) -> npt.NDArray[Any]:
        """The rows of a sample's learned tokens."""
        part, place = divmod(number, PART)
        first, last = (int(end) for end in self.ends[part][place : place + 2])
        offset = 8 * len(self.ends[part]) + first * kind(self.k).itemsize
        return np.fromfile(self.paths[part], kind(self.k), count=last - first, offset=offset)


@dataclass(frozen=True, eq=False)
class Foretold:
    """`source`, a Numbered one of texts, with TOKENS int64 [B, L, k], LOGS float32 [B, L, k] and REST float32 [B, L] in its batches, 0
    where nothing is learned."""

    source: Source
    k: int
    train: Table
    held: Table

    @property
    def info(self) -> DataInfo:
        return self.source.info

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        assert isinstance(self.source, Numbered)
        rows = self.source.batch(positions, seed, noise)
        told = self._told(self.train, self.source.numbers(positions, seed), rows)
        return rows | {name: moved(value, noise.samples.device) for name, value in told.items()}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        rows = self.source.heldout_batch(indices)
        return rows | self._told(self.held, indices, rows)

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        return self.source.conditions(rows) if isinstance(self.source, Conditional) else {}

    def _told(self, table: Table, numbers: Tensor, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        learned_BL = learned(rows).cpu().numpy()
        found = np.zeros(learned_BL.shape, kind(self.k))
        for row, number in enumerate(numbers.tolist()):
            found[row][learned_BL[row]] = table.of(number)
        parts = (torch.from_numpy(np.ascontiguousarray(found[name])) for name in ("tokens", "logs", "rest"))
        return dict(zip((TOKENS, LOGS, REST), (part.long() if part.dtype == torch.int32 else part for part in parts), strict=True))


@dataclass(frozen=True, eq=False)
class CountedForetold(Foretold):
    """Of a source that knows how much is learned of each sample."""

    def units(self, positions: Tensor, seed: int) -> Tensor:
        assert isinstance(self.source, Counted)
        return self.source.units(positions, seed)


def learned(rows: Mapping[str, Tensor]) -> Tensor:
    """bool [B, L]: which tokens of a batch are learned from; of one stream every one is that has a next."""
    return rows["labels"] != NOT_LEARNED if "labels" in rows else torch.ones_like(rows["tokens"][:, 1:], dtype=torch.bool)


def kind(k: int) -> np.dtype[Any]:
    """Of a row."""
    return np.dtype([("tokens", "<i4", (k,)), ("logs", "<f4", (k,)), ("rest", "<f4")])


def paths(cache: Path, key: str, source: Numbered, data: str) -> tuple[list[Path], list[Path]]:
    """The files of training samples, and of held-out ones. `key` says what the teacher is, and how it is asked; `data` is the `content`."""
    name = hashlib.sha256(f"{VERSION} {key} {data}".encode()).hexdigest()[:24]
    train, held = (
        [cache / "teacher" / f"{name}-{side}-{number:05d}.bin" for number in range(-(-count // PART))]
        for side, count in (("train", source.info.length), ("held", source.info.heldout))
    )
    return train, held


def write(path: Path, source: Numbered, number: int, teacher: Teacher, k: int, *, held: bool, vocabulary: int) -> None:
    """File `number` of the training samples, or of the held-out ones, where it does not exist. JobError GTJ0114."""
    count = source.info.heldout if held else source.info.length
    together = max(1, min(TOGETHER, BYTES // (4 * source.info.shape[0] * vocabulary)))

    def fill(file: BinaryIO) -> None:
        first, last = number * PART, min((number + 1) * PART, count)
        counts = np.zeros(last - first, "<i8")
        file.write(np.array([last - first], "<i8").tobytes() + counts.tobytes())
        for start in range(first, last, together):
            numbers = torch.arange(start, min(start + together, last))
            samples = source.plain(numbers, held=held)
            counts[start - first : start - first + len(numbers)] = learned(samples).sum(dim=1).numpy()
            tokens, logs, rest = teacher(samples)
            rows = np.empty(len(tokens), kind(k))
            rows["tokens"], rows["logs"], rows["rest"] = tokens.cpu().numpy(), logs.cpu().numpy(), rest.cpu().numpy()
            file.write(rows.tobytes())
        file.seek(8)
        file.write(counts.tobytes())

    cached(path, fill)


def content(source: Source) -> str:
    """A digest of all tokens of a source, of what is learned of them and of how they lie in samples."""
    found = hashlib.sha256()
    if isinstance(source, Mixed):
        for part in source.sources:
            found.update(content(part).encode())
    elif isinstance(source, AnswerSource):
        own = source.sequences
        found.update(f"{source.packing} {source.info.shape}".encode())
        for side in (source.train, source.held):
            for one in (side.of, side.first, side.last, side.ends):
                found.update(np.ascontiguousarray(one).data)
        for table in (own.starts, own.tokens, own.learned):
            found.update(np.ascontiguousarray(table).data)
    else:
        assert isinstance(source, TextSource), "distillation is of answers, or of one stream"
        found.update(str(source.info.shape).encode())
        for rows in (source.sequences, source.held):
            for start in range(0, len(rows), 4096):
                found.update(rows[start : start + 4096].contiguous().numpy().data)
    return found.hexdigest()
