"""Records of several texts: a prompt and its completion, a conversation, two answers of which one is better.

Each role becomes tokens, int64 [B, T] padded with the end-of-text token, and "<role>_length", int64 [B]; T is the context length. Of
`messages` the contents are joined, and "messages_speaker", int64 [B, T], says who speaks: 0 nobody, 1 system, 2 user, 3 assistant,
4 tool. A role whose text is longer than T is cut off at its end, and how many were is said. Objectives decide what to make of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.data.bad import BadSamples
from trainjobs.data.cache import cached
from trainjobs.data.conversation import messages
from trainjobs.data.dataset import Dataset
from trainjobs.data.files import fingerprinted
from trainjobs.data.holdout import position
from trainjobs.data.pixels import readonly
from trainjobs.data.places.place import Shelf
from trainjobs.data.room import Room
from trainjobs.data.sampler import order
from trainjobs.data.source import DataInfo, divide, moved
from trainjobs.data.tokens import ByteTokenizer, Tokenizer
from trainjobs.noise import Noise

ROLES = ("prompt", "completion", "messages", "chosen", "rejected", "source", "target", "text")
SPEAKERS = {"system": 1, "user": 2, "assistant": 3, "tool": 4}
_VERSION = 2
_SIDE = 3  # numbers at the end of a row: where its name lies in [0, 1), as the two halves of a float64, and whether its split is held out


@dataclass(frozen=True)
class Exchanges:
    """`read` goes through the `count` records in order: name, where it is, the value of each role, whether its split is held out (if
    `apart`)."""

    key: str
    where: str
    roles: tuple[str, ...]
    read: Callable[[], Iterator[tuple[str, str, Mapping[str, Any], bool]]]
    apart: bool = False
    count: int = 0
    bad: BadSamples | None = None


@dataclass(frozen=True)
class ExchangeSource:
    """`tables` maps each field to int32 [N, T], lengths to [N]; `train` and `held` are rows of them."""

    info: DataInfo
    tables: Mapping[str, Tensor]
    train: Tensor
    held: Tensor

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        rows = self.train[order(positions, seed, self.info.length)]
        return {name: moved(table.index_select(0, rows), noise.samples.device).long() for name, table in self.tables.items()}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        rows = self.held[indices]
        return {name: table.index_select(0, rows).long() for name, table in self.tables.items()}


def of(dataset: Dataset, shelf: Shelf) -> Exchanges:
    roles = tuple(role for role in ROLES if role in dataset.roles)
    count = sum(block.rows for block in dataset.records.blocks)
    return Exchanges(dataset.key, dataset.found.uri, roles, lambda: dataset.documents(shelf), dataset.apart is not None, count, dataset.bad)


def open_exchanges(exchanges: Exchanges, context: int, holdout: float, cache: Path, limit: int | None = None) -> ExchangeSource:
    """The records' bytes as tokens, kept in `cache` as one table, for which they are read once. JobError GTJ0113 for a value that is no
    text, naming its record; GTJ0114 for a table of more than `limit` bytes."""
    tokenizer, where = ByteTokenizer(), exchanges.where
    name = fingerprinted(
        [exchanges.key, *exchanges.roles], version=_VERSION, context=context, tokenizer=[tokenizer.vocabulary, tokenizer.end]
    )
    fields = [field for role in exchanges.roles for field in _fields(role)]
    width = sum(1 if field.endswith("_length") else context for field in fields) + _SIDE

    def write(file: BinaryIO) -> None:
        Room(limit, where).expect(exchanges.count * width * np.dtype(np.int32).itemsize)
        cut = count = 0
        for name, place, values, apart in exchanges.read():
            try:
                row, over = _row(exchanges.roles, values, tokenizer, context, place)
            except JobError as error:
                if exchanges.bad is None:
                    raise
                exchanges.bad.left_out((-1, count), error)
                count += 1
                continue
            side = np.array([position(name)], "<f8").view("<i4")
            file.write(np.concatenate([row.astype("<i4"), side, np.array([apart], "<i4")]).tobytes())
            cut, count = cut + over, count + 1
        if cut:
            log = logging.getLogger(__name__)
            log.warning("%d of %d records are longer than a context of %d tokens and were cut off at their end", cut, count, context)

    path = cached(cache / f"exchanges-{name}.bin", write)
    flat = np.memmap(path, dtype="<i4", mode="r") if path.stat().st_size else np.empty(0, dtype="<i4")
    rows = flat.reshape(-1, width)
    table, lies = readonly(rows), np.ascontiguousarray(rows[:, -3:-1]).view("<f8").ravel()
    aside = rows[:, -1] != 0 if exchanges.apart else lies < holdout
    if not exchanges.apart and holdout and not aside.any():
        divide(len(rows), holdout, where, "record")
        aside[int(np.argmin(lies))] = True
    kept, held = torch.from_numpy(np.flatnonzero(~aside)), torch.from_numpy(np.flatnonzero(aside))
    if not len(kept):
        raise JobError("GTJ0113", "no training samples are left", where=where, why=f"all of {len(rows)} records are held out")
    tables, start = {}, 0
    for field in fields:
        stop = start + (1 if field.endswith("_length") else context)
        tables[field] = table[:, start] if field.endswith("_length") else table[:, start:stop]
        start = stop
    info = DataInfo("text", (context,), len(kept), len(held), vocabulary=tokenizer.vocabulary, tokenizer=tokenizer)
    return ExchangeSource(info, tables, kept, held)


def _fields(role: str) -> Sequence[str]:
    return (role, f"{role}_length", f"{role}_speaker") if role == "messages" else (role, f"{role}_length")


def _row(
    roles: Sequence[str], values: Mapping[str, Any], tokenizer: Tokenizer, context: int, where: str
) -> tuple[np.ndarray[Any, Any], bool]:
    parts, over = [], False
    for role in roles:
        turns = list(_turns(values.get(role), role, where))
        tokens = tokenizer.arrays([text for _, text in turns])
        flat = np.concatenate(tokens) if tokens else np.empty(0, dtype=np.int32)
        over |= len(flat) > context
        line = np.full(context, tokenizer.end, dtype=np.int32)
        line[: len(flat)] = flat[:context]
        parts += [line, np.array([min(len(flat), context)], dtype=np.int32)]
        if role == "messages":
            speakers = np.zeros(context, dtype=np.int32)
            spoken = np.repeat([speaker for speaker, _ in turns], [len(found) for found in tokens]) if turns else flat
            speakers[: len(flat)] = spoken[:context]
            parts.append(speakers)
    return np.concatenate(parts), over


def _turns(value: Any, role: str, where: str) -> Iterator[tuple[int, str]]:
    """Who speaks, and what, of a role's value: a text, or a list of messages."""
    if isinstance(value, str):
        yield 0, value
        return
    for message in messages(value, role, where):
        yield SPEAKERS[message.role], message.content
