"""Data that `gtj prepare` made: told by its prepared.json, checked against the job, read. No torch here.

docs/reference/prepared.md says what is written. Tokens go into training as they are: nothing is encoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.documents import PIECE, Row, Texts, settings
from trainjobs.data.files import fingerprinted
from trainjobs.data.found import Found
from trainjobs.data.places.place import Listed, Object, Place, Shelf
from trainjobs.data.tokens import TRAINED

MANIFEST = "prepared.json"
VERSION = 1
_AGAIN = "run gtj prepare again, with another --out"
_FREE = ("where", "limit")  # what chose the samples need not be said again; to say something else would be passed over in silence


@dataclass(frozen=True)
class Prepared:
    """`shards` are what prepared.json says of each by its name: sha256, bytes, rows, and of tokens tokens, pieces and divided."""

    source: str
    kind: str  # tokens, or pictures
    key: str
    settings: Mapping[str, Any]
    of: int
    shards: Mapping[str, Mapping[str, Any]]
    tokenizer: str | None = None  # sha256 of tokenizer.json
    apart: bool = False

    def total(self, what: str) -> int:
        return sum(int(shard.get(what, 0)) for shard in self.shards.values())

    def to_json(self) -> bytes:
        shards = {name: dict(self.shards[name]) for name in sorted(self.shards)}
        told = {**vars(self), "settings": dict(self.settings), "shards": shards, "version": VERSION}
        return (json.dumps(told, indent=1, sort_keys=True) + "\n").encode()


def from_json(data: bytes, where: str) -> Prepared:
    """JobError GTJ0113 for what cannot be read."""
    try:
        told = json.loads(data)
        version = told.pop("version")
        if version != VERSION:
            how = f"read it with the gtj that wrote it, or {_AGAIN}"
            raise JobError("GTJ0113", f"{MANIFEST} is of version {version}, and {VERSION} is known here", where=where, how=how)
        return Prepared(**told)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JobError("GTJ0113", f"{MANIFEST} cannot be read", where=where, why=str(error), how=_AGAIN) from error


def options(spec: Spec) -> dict[str, Any]:
    """The settings that what is prepared depends on, by their names in a manifest."""
    data = spec.data
    chosen = {"where": data.where, "limit": data.limit}
    if spec.reads_text:
        tokenizer = settings(spec).tokenizer
        size = tokenizer.vocabulary_size if tokenizer.type == "bpe" else None
        kind = "base" if settings(spec).base is not None else tokenizer.type
        return {"tokenizer": kind, "vocabularySize": size, "holdout": data.holdout, "piece": PIECE, **chosen}
    return {"size": data.images.size, "channels": data.images.channels, **chosen}


def prepared(spec: Spec, found: Found) -> Prepared | None:
    """What was prepared at a source; None where it is as people have it.

    JobError GTJ0108 when it was prepared with other settings than the job's, GTJ0113 when it is not all there.
    """
    if not (told := _named(found.train, MANIFEST)):
        return None
    place = found.place()
    made = from_json(place.read(told, 0, told.size), place.where(told))
    if (made.kind == "tokens") != spec.reads_text:
        what = f"a {spec.family} job cannot learn from {made.kind} that were prepared"
        raise JobError("GTJ0108", what, where=found.uri, how="name the data itself as data.source, or prepare it for this job")
    for name, value in options(spec).items():
        before = made.settings.get(name)
        if value != before and not (name in _FREE and value is None):
            why = f"{name} was {_said(before)}, and the job has {_said(value)}"
            how = f"set it to {_said(before)}, or {_AGAIN}"
            raise JobError("GTJ0108", "the data was prepared with other settings", where=found.uri, why=why, how=how)
    listed = found.train.objects + (found.held.objects if found.held else ())
    sizes = {one.name: one.size for one in listed}
    if lost := [name for name, shard in made.shards.items() if sizes.get(name) != shard["bytes"]]:
        why = f"{lost[0]} is {'of another size' if lost[0] in sizes else 'missing'}"
        raise JobError("GTJ0113", "a prepared shard is not as it was written", where=found.uri, why=why, how=_AGAIN)
    if len(made.shards) < made.of:
        why, how = f"{len(made.shards):,} of {made.of:,} shards are there", "run the same gtj prepare again: it goes on where it stopped"
        raise JobError("GTJ0113", "the data is not prepared to its end", where=found.uri, why=why, how=how)
    return made


def line(made: Prepared) -> str:
    """What there is, in a line."""
    words = f"{made.total('tokens'):,} tokens" if made.kind == "tokens" else f"{made.total('rows'):,} images"
    return f"prepared, {len(made.shards):,} shard{'s' if len(made.shards) != 1 else ''}, {words}, from {made.source}"


def tokenizer_of(made: Prepared, found: Found) -> bytes | None:
    """The file of the tokenizer; None where none was trained. JobError GTJ0113 when it is not the one of the tokens."""
    if made.tokenizer is None:
        return None
    told = _named(found.train, TRAINED)
    data = found.place().read(told, 0, told.size) if told else b""
    if hashlib.sha256(data).hexdigest() != made.tokenizer:
        why = "it is not the one that the tokens were made with" if told else "it is missing"
        raise JobError("GTJ0113", f"{TRAINED} does not belong to the prepared data", where=found.uri, why=why, how=_AGAIN)
    return data


def of_tokens(made: Prepared, found: Found, shelf: Shelf) -> Texts:
    """The documents as tokens, in the order in which they were read."""
    there = {one.name: one for one in found.train.objects}

    def ready() -> Iterator[Row]:
        place = found.place()
        for name in sorted(made.shards):
            yield from _rows(place, there[name], shelf, str(made.shards[name]["sha256"]))

    key = fingerprinted([made.key, [[name, made.shards[name]["sha256"]] for name in sorted(made.shards)]])
    total = {name: made.total(name) for name in ("pieces", "divided", "tokens")}
    return Texts(key, lambda: iter(()), made.apart, ready, **total)


def together(every: Sequence[tuple[Prepared | None, Found]], trained: bytes | None) -> bytes | None:
    """The one tokenizer of all sources; `trained` is that of a run that goes on. JobError GTJ0108 where there are several."""
    files = {tokenizer_of(made, found) for made, found in every if made} | ({trained} if trained is not None else set())
    if len(files) > 1 or not all(made for made, _ in every):
        what = "the sources do not have one tokenizer"
        how = "train on what was prepared together, or on data as it is"
        raise JobError("GTJ0108", what, where="data.sources" if len(every) > 1 else "data.source", how=how)
    return next(iter(files))


def _rows(place: Place, shard: Object, shelf: Shelf, digest: str) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with shelf.hold(place, [shard]) as (path,):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                why = "its bytes are not those of prepared.json"
                raise JobError("GTJ0113", "a prepared shard is damaged", where=place.where(shard), why=why, how=_AGAIN)
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(columns=["tokens", "held"]):
                tokens = batch.column("tokens")
                for row, held in enumerate(batch.column("held").to_pylist()):
                    yield held, tokens[row].values.to_numpy(zero_copy_only=False)


def _named(listed: Listed, name: str) -> Object | None:
    return next((one for one in listed.objects if one.name == name), None)


def _said(value: object) -> str:
    return "not set" if value is None else str(value)
