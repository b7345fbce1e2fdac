"""The sequences of a source's records, encoded once and kept in one file of the cache.

The file: int64 [6 + groups + counts], then the tables below, little-endian. A group is a record: `each` sequences one after the other (two
of a preference or a translation, else one). Records that are too long, or of which nothing is learned, are not in it, but counted.
"""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from trainjobs.api.errors import JobError
from trainjobs.data.cache import cached
from trainjobs.data.encoding import Encoder, encode
from trainjobs.data.files import fingerprinted
from trainjobs.data.formats import COLUMN, TWO, Format
from trainjobs.data.holdout import position

MESSAGES = "messages of the prompt"  # a column beside the others, for models of rewards
_VERSION = 1
_TOGETHER = 1024  # records
_HEAD = 8  # int64: sequences, tokens, bytes of columns, records read, too long, longest, nothing learned, joined otherwise

Record = tuple[str, str, Mapping[str, Any], bool]  # as Dataset.documents gives them


@dataclass(frozen=True)
class Counts:
    """What became of the records: `long` and `empty` ones were left out; `longest` is in tokens; `joined` are prompts whose tokens would be
    others together with what follows."""

    records: int
    long: int
    longest: int
    empty: int
    joined: int

    def words(self, context: int) -> Iterator[str]:
        if self.long:
            yield f"{self.long:,} of {self.records:,} records are longer than {context} tokens (up to {self.longest:,}) and were left out"
        if self.empty:
            yield f"of {self.empty:,} of {self.records:,} records nothing is learned: they were left out"
        if self.joined:
            yield f"{self.joined:,} prompts would be other tokens together with their completion; they are encoded by themselves"


@dataclass(frozen=True, eq=False)
class Sequences:
    """`tokens` int32 [all], `learned` bool [all]; sequence s is tokens[starts[s] : starts[s + 1]]. `held`: of each record, whether it is
    held out. `columns`: of each record its other columns, as JSON, in `texts` from `offsets`."""

    tokens: npt.NDArray[np.int32]
    learned: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    held: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    texts: npt.NDArray[np.uint8]
    counts: Counts

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.starts)


def sequences(
    records: Iterator[Record],
    form: Format,
    encoder: Encoder,
    room: int,
    where: str,
    holdout: float | None,
    path: Path,
    *,
    messages: bool = False,
) -> Sequences:
    """Every record as sequences of at most `room` tokens; a text that is longer is cut into pieces that share a token. `holdout` is the
    share held out by name, None where splits say it. The file at `path` is made where it does not exist. `messages`: where a prompt is
    a list of messages, they are a column, MESSAGES.

    JobError GTJ0113 for a record that is none of the format, and where none is left.
    """

    def write(file: BinaryIO) -> None:
        logging.getLogger(__name__).info("encoding the records, once, in %s", path)
        file.write(_made(records, form, encoder, room, where, holdout, messages))

    data = np.fromfile(cached(path, write), dtype=np.uint8)
    head = data[: 8 * _HEAD].view("<i8")
    count, tokens, columns = (int(one) for one in head[:3])
    groups = count // (2 if form in TWO else 1)
    at = 8 * _HEAD
    parts: list[npt.NDArray[Any]] = []
    for kind, length in (("<i8", count + 1), ("<i8", groups + 1), ("<i4", tokens), ("u1", tokens), ("u1", groups), ("u1", columns)):
        size = length * np.dtype(kind).itemsize
        parts.append(data[at : at + size].view(kind))
        at += size
    starts, offsets, ids, learned, held, texts = parts
    return Sequences(ids, learned.view(np.bool_), starts, held.view(np.bool_), offsets, texts, Counts(*(int(one) for one in head[3:])))


def _made(records: Iterator[Record], form: Format, encoder: Encoder, room: int, where: str, holdout: float | None, messages: bool) -> bytes:
    ids, learned, starts = array("i"), bytearray(), array("q", [0])
    held, offsets, texts = bytearray(), array("q", [0]), bytearray()
    names: list[str] = []
    read = long = longest = empty = 0
    one = encode(encoder, form)
    for name, place, values, apart in _ahead(records, encoder):
        read += 1
        found = one(values, place)
        most = max(len(tokens) for tokens, _ in found)
        if form == "text" and most > room:
            ((tokens, marks),) = found
            found = [(tokens[at : at + room], marks[at : at + room]) for at in range(0, most - 1, room - 1)]
        elif most > room:
            long, longest = long + 1, max(longest, most)
            continue
        asked = found[1:] if form in ("translation", "rewriting") else found
        if form != "prompts" and not all(any(marks[1:]) for _, marks in asked):
            empty += 1
            continue
        columns = {role.removeprefix(COLUMN): value for role, value in values.items() if role.startswith(COLUMN)}
        if messages and isinstance(values.get("prompt"), list):
            columns[MESSAGES] = values["prompt"]
        for number, (tokens, marks) in enumerate(found):
            ids.extend(tokens)
            learned += bytes(marks)
            starts.append(len(ids))
            if form in ("text", "masked", "spans") or number == 0:
                texts += json.dumps(columns, default=str).encode() if columns else b""
                offsets.append(len(texts))
                held.append(apart if holdout is None else position(name) < holdout)
                names.append(name)
    if not held:
        raise _nothing(form, encoder.on, where, read, long, longest, room)
    if holdout and not any(held):
        held[min(range(len(held)), key=lambda number: position(names[number]))] = 1
    if all(held):
        why = f"all of {len(held):,} records are held out"
        raise JobError("GTJ0113", "no training samples are left", where=where, why=why, how="add data, or set data.holdout to 0")
    head = np.array([len(starts) - 1, len(ids), len(texts), read, long, longest, empty, encoder.joined], dtype="<i8")
    tables = (np.array(starts, "<i8"), np.array(offsets, "<i8"), np.array(ids, "<i4"))
    return b"".join([head.tobytes(), *(table.tobytes() for table in tables), bytes(learned), bytes(held), bytes(texts)])


def _ahead(records: Iterator[Record], encoder: Encoder) -> Iterator[Record]:
    """The records, of which many are encoded at once. An error in reading comes after those before it were looked at."""
    error: JobError | None = None
    while error is None:
        batch: list[Record] = []
        try:
            for record in islice(records, _TOGETHER):
                batch.append(record)  # one by one: what was read before an error counts
        except JobError as one:
            error = one
        if not batch and error is None:
            return
        encoder.ahead(values for _, _, values, _ in batch)
        yield from batch
    raise error


def _nothing(form: Format, on: str, where: str, read: int, long: int, longest: int, room: int) -> JobError:
    """GTJ0113: no record is left."""
    if not read:
        return JobError("GTJ0113", "there is no record", where=where, how="name other data, or another split in data.split")
    if long:
        why = f"{long:,} are longer than {room - 1} tokens, the longest has {longest:,}"
        how = "raise language.network.contextLength, or shorten the records"
        return JobError("GTJ0113", f"no record of {read:,} fits into the context", where=where, why=why, how=how)
    if form == "spans":
        why = "none has two tokens, of which one could be hidden"
        return JobError("GTJ0113", f"nothing is learned of {read:,} texts", where=where, why=why, how="name other data")
    why = "no record has an answer" if form == "chat" else "every completion is empty"
    how = "set language.loss.tokens to all, or mend the records"
    return JobError("GTJ0113", f"loss.tokens: {on} leaves no token of {read:,} records", where=where, why=why, how=how)


def path_of(cache: Path, key: str, form: Format, tokenizer: list[object], **settings: object) -> Path:
    """Changes with the records, the tokenizer and all that counts."""
    return cache / f"sequences-{fingerprinted([key, form], version=_VERSION, tokenizer=tokenizer, **settings)}.bin"
