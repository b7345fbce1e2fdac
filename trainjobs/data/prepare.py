"""What a run would do at its start, done ahead: shards in a place, and a manifest of their digests.

A shard is a function of the data and the settings alone, so one that was begun in vain is made again to the same bytes; one whose entry
stands in prepared.json is not made again. prepared.json is written last: what it names is there.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.dataset import Dataset, Reading, open_dataset
from trainjobs.data.found import look
from trainjobs.data.places.place import Shelf
from trainjobs.data.prepare_images import Pictures
from trainjobs.data.prepare_shards import Entry, Shards, Task, Writer, unwritable, written
from trainjobs.data.prepare_text import Tokens, tokenizer_for
from trainjobs.data.prepared import MANIFEST, Prepared, from_json, options
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.tokens import TRAINED, Tokenizer, kept
from trainjobs.stores.store import BlobStore, Missing

# In any order: (task, its entry), where each file was stored before.
Work = Callable[[Callable[[Task], Entry], Sequence[Task]], Iterable[tuple[Task, Entry]]]


@dataclass(frozen=True)
class Made:
    """`before` shards were there already; `tokens` and `bytes` are of those that were made now. `columns` are fields of data.columns that
    a manifest must name to train on it with what the pictures come with."""

    prepared: Prepared
    before: int
    bytes: int
    tokens: int
    rows: int
    seconds: float
    columns: tuple[str, ...] = ()


def prepare(
    spec: Spec,
    store: BlobStore,
    reading: Reading,
    shard_size: int,
    work: Work,
    *,
    show: Callable[[int, int, int], None] = lambda done, of, size: None,
    clock: Callable[[], float] = time.monotonic,
) -> Made:
    """Prepare the data of `spec` in `store`. `show` is told (shards that are there, of how many, bytes made so far).

    JobError GTJ0108 when something else was prepared there, or there is nothing to prepare; GTJ0112 and GTJ0114 when the place cannot be
    written; the errors of reading the data.
    """
    started = clock()
    dataset, shelf, tasks, state = _asked(spec, reading, shard_size)
    kind, there = state.kind, _there(store)
    if there is not None:
        _same(there, state, store.uri)
        state = there
    tokenizer = None
    if kind == "tokens":
        tokenizer = tokenizer_for(spec, dataset, shelf, reading.cache, _tokenizer(store, state) if there is not None else None)
        files = {TRAINED: tokenizer.file} if isinstance(tokenizer, PretrainedTokenizer) else kept(tokenizer)
        if there is None and (data := files.get(TRAINED)) is not None:
            _put(store, reading.cache, TRAINED, data)
            state = replace(state, tokenizer=hashlib.sha256(data).hexdigest())
    shards = Shards(_writer(spec, dataset, shelf, reading, tokenizer), store, reading.cache / "prepared")
    due = [task for task in tasks if task.name not in state.shards]
    before, made, tokens, rows = len(tasks) - len(due), 0, 0, 0
    if there is None:
        _put(store, reading.cache, MANIFEST, state.to_json())
    for task, entry in work(shards.make, due):
        state = replace(state, shards={**state.shards, task.name: entry})
        _put(store, reading.cache, MANIFEST, state.to_json())
        made, tokens, rows = made + int(entry["bytes"]), tokens + int(entry.get("tokens", 0)), rows + int(entry["rows"])
        show(len(state.shards), len(tasks), made)
    beside = {"label": "cls", "caption": "txt"} if kind == "pictures" else {}
    columns = tuple(f"{role}: {column}" for role, column in beside.items() if role in dataset.roles)
    return Made(state, before, made, tokens, rows, clock() - started, columns)


def elsewhere(spec: Spec, store: BlobStore, reading: Reading, shard_size: int) -> Shards:
    """The same shards, made by another process, of what was begun in `store`.

    JobError GTJ0114 or GTJ0112 where that is not seen from here, GTJ0108 where the data is not what it is where it was begun.
    """
    dataset, shelf, _, state = _asked(spec, reading, shard_size)
    there = _there(store)
    if there is None:
        where, how = f"{store.uri}/{MANIFEST}", "name a bucket with --out, or a folder that every machine mounts"
        raise JobError("GTJ0114", "what was begun is not seen from every machine", where=where, why="there is no such file", how=how)
    _same(there, state, store.uri)
    trained = _tokenizer(store, there)
    tokenizer = tokenizer_for(spec, dataset, shelf, reading.cache, trained) if state.kind == "tokens" else None
    return Shards(_writer(spec, dataset, shelf, reading, tokenizer), store, reading.cache / "prepared")


def divided(dataset: Dataset, shard_size: int, kind: str) -> list[Task]:
    """Blocks that follow each other, about `shard_size` bytes of the source together; a larger block becomes several, of equal numbers of
    rows. What is held out apart makes shards of its own."""
    blocks = dataset.records.blocks
    rows: dict[Any, int] = {}
    for block in blocks:
        for found in block.objects:
            rows[found] = rows.get(found, 0) + block.rows
    held = dataset.apart if dataset.apart is not None else len(blocks)
    tasks: list[Task] = []
    before, size = range(0), 0.0

    def add(taken: range, part: range | None = None) -> None:
        if taken:
            tasks.append(_task(len(tasks), taken, part, kind, taken.start >= held))

    for number, block in enumerate(blocks):
        own = sum(found.size * (block.rows / rows[found] if rows[found] else 1.0) for found in block.objects)
        if size + own > shard_size or number == held:
            add(before)
            before, size = range(number, number), 0.0
        if own > shard_size:
            shards = min(block.rows, math.ceil(own / shard_size))
            for shard in range(shards):
                add(range(number, number + 1), range(block.rows * shard // shards, block.rows * (shard + 1) // shards))
            before = range(number + 1, number + 1)
        else:
            before, size = range(before.start, number + 1), size + own
    add(before)
    return tasks


def _asked(spec: Spec, reading: Reading, shard_size: int) -> tuple[Dataset, Shelf, list[Task], Prepared]:
    """The data, its shards, and what is said of them before there is any."""
    dataset, shelf = _opened(spec, reading)
    kind = "tokens" if dataset.kind == "text" else "pictures"
    tasks = divided(dataset, shard_size, kind)
    settings = {**options(spec), "shardSize": shard_size}
    return dataset, shelf, tasks, Prepared(dataset.found.uri, kind, dataset.key, settings, len(tasks), {}, apart=dataset.apart is not None)


def _writer(spec: Spec, dataset: Dataset, shelf: Shelf, reading: Reading, tokenizer: Tokenizer | None) -> Writer:
    if tokenizer is not None:
        return Tokens(dataset, shelf, tokenizer, spec.data.holdout)
    return Pictures.of(dataset, shelf, reading)


def _opened(spec: Spec, reading: Reading) -> tuple[Dataset, Shelf]:
    how = "train on it as it is"
    if len(spec.data.parts) != 1:
        what = "a mixture is not prepared as one"
        raise JobError("GTJ0108", what, where="data.sources", how="prepare each of its sources by a manifest of its own")
    if spec.data.uri.startswith("builtin:"):
        raise JobError("GTJ0108", "there is nothing to prepare", where="data.source", why=f"{spec.data.uri} is built in", how=how)
    if spec.data.on_bad_sample == "skip":
        why, how = "a shard holds what the data holds", "set data.onBadSample to fail, and replace or remove what cannot be read"
        raise JobError("GTJ0108", "data is not prepared with samples left out", where="data.onBadSample", why=why, how=how)
    (found,) = look(spec, {})
    if any(one.name == MANIFEST for one in found.train.objects):
        raise JobError("GTJ0108", "the data is prepared already", where=found.uri, how="name the data that it was made from")
    shelf = reading.shelf(spec.data, derived=True)
    dataset = open_dataset(spec, found, reading, shelf)
    if dataset.kind == "exchange" or spec.custom:
        why = "only documents and pictures of the built-in families are"
        raise JobError("GTJ0108", f"the data of a {spec.family} job is not prepared", where="data.source", why=why, how=how)
    return dataset, shelf


def _there(store: BlobStore) -> Prepared | None:
    with written(store, MANIFEST):
        try:
            data = store.get(MANIFEST)
        except Missing:
            return None
    return from_json(data, f"{store.uri}/{MANIFEST}")


def _same(there: Prepared, asked: Prepared, uri: str) -> None:
    how = "name another place with --out, or empty this one"
    for name, value in asked.settings.items():
        if there.settings.get(name) != value:
            why = f"{name} was {there.settings.get(name)}, and is {value} now"
            raise JobError("GTJ0108", "data was prepared there with other settings", where=uri, why=why, how=how)
    if (there.key, there.kind, there.of, there.apart) != (asked.key, asked.kind, asked.of, asked.apart):
        why = f"it was made from {there.source}" if there.source != asked.source else f"{asked.source} has changed since"
        raise JobError("GTJ0108", "other data was prepared there", where=uri, why=why, how=how)


def _tokenizer(store: BlobStore, state: Prepared) -> bytes | None:
    if state.tokenizer is None:
        return None
    with written(store, TRAINED):
        data = store.get(TRAINED)
    if hashlib.sha256(data).hexdigest() != state.tokenizer:
        raise JobError("GTJ0113", f"{TRAINED} is damaged", where=f"{store.uri}/{TRAINED}", how="empty the place, and prepare again")
    return data


def _put(store: BlobStore, folder: Path, name: str, data: bytes) -> None:
    """In place of what is there, as a whole."""
    path = folder / f"{name}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise unwritable("prepared data", path, error) from error
    with written(store, name):
        store.upload([(path, name)])


def _task(number: int, blocks: range, part: range | None, kind: str, held: bool) -> Task:
    if kind == "tokens":
        return Task(f"tokens-{number:05d}.parquet", blocks, part)
    return Task(f"{'validation' if held else 'train'}-{number:05d}.tar", blocks, part)
