"""What a teacher says of the data, in a place of its own: made by `gtj prepare --teacher`, and read by the runs that name the place in
language.distill.prepared instead of asking the teacher themselves.

taught.json says which teacher was asked, what, and of which data as tokens, all by digest: a run that asks something else is refused, not
answered with it. It is stored before the first file and after each, so that work that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from trainjobs.api.errors import JobError
from trainjobs.checkpoints import open_store
from trainjobs.data.cache import cached
from trainjobs.data.prepare_shards import written
from trainjobs.stores.store import BlobStore, Missing, StoreError

MANIFEST, VERSION = "taught.json", 1
WHERE = "language.distill.prepared"
_AGAIN = "run gtj prepare --teacher for this job, into another place"
_NAMES = {"k": "topK", "part": "samples of a file"}  # of what is asked, where it has another name in a manifest


@dataclass(frozen=True)
class Taught:
    """`asked` is all that an answer depends on, `data` a digest of the samples as tokens, `computed` what on and by which versions; `of` is
    how many files there are to be, and `files` are sha256 and bytes by their names."""

    asked: Mapping[str, Any]
    data: str
    computed: Sequence[str]
    of: int
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        files = {name: dict(self.files[name]) for name in sorted(self.files)}
        return (json.dumps({**vars(self), "files": files, "version": VERSION}, indent=1, sort_keys=True) + "\n").encode()

    @property
    def digest(self) -> str:
        """Of all that was said."""
        return hashlib.sha256(self.to_json()).hexdigest()


def named(train: Sequence[Path], held: Sequence[Path]) -> list[tuple[Path, str]]:
    """The files of the cache, with what they are called in a place."""
    return [(path, f"{side}-{number:05d}.bin") for side, paths in (("train", train), ("held", held)) for number, path in enumerate(paths)]


def store(
    place: BlobStore, asked: Taught, due: Sequence[tuple[Path, str]], make: Callable[[int], None], show: Callable[[int], None]
) -> int:
    """See that all of `due` lies in the place: `make(number)` asks the teacher for one. How many were there before; `show` is told of each
    that is. JobError GTJ0108 where other answers lie there, GTJ0112 and GTJ0114 where it cannot be written."""
    there = _there(place, place.uri)
    if there is not None:
        how = "name another place with --out, or empty this one"
        _same(there, asked, place.uri, how)
        if list(there.computed) != list(asked.computed):
            why = f"they were computed by {', '.join(there.computed)}, and would be by {', '.join(asked.computed)}"
            raise JobError("GTJ0108", "a part of the answers was computed elsewhere", where=place.uri, why=why, how=how)
    state = there or asked
    before = len(state.files)
    for number, (path, name) in enumerate(due):
        if name not in state.files:
            if not state.files:
                _put(place, path.parent, state)
            make(number)
            data = path.read_bytes()
            with written(place, name):
                place.upload([(path, name)])
            state = replace(state, files={**state.files, name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}})
            _put(place, path.parent, state)
        show(number + 1)
    return before


def found(uri: str, asked: Taught) -> Taught:
    """What lies in the place. JobError GTJ0118 where nothing does, GTJ0108 where it is of another teacher, question or data, GTJ0113 where
    it is not whole, GTJ0112 where the store refuses."""
    there = _there(open_store(uri), uri)
    if there is None:
        why, how = f"there is no {MANIFEST}", "run gtj prepare --teacher for this job, or take prepared out"
        raise JobError("GTJ0118", "no teacher has spoken there", where=f"{WHERE}: {uri}", why=why, how=how)
    _same(there, asked, f"{WHERE}: {uri}", _AGAIN)
    if len(there.files) != there.of:
        why, how = f"{len(there.files):,} of {there.of:,} files are there", "run the same gtj prepare --teacher again: it goes on"
        raise JobError("GTJ0113", "the teacher was not asked to the end", where=uri, why=why, how=how)
    return there


def fetch(uri: str, there: Taught, path: Path, name: str) -> None:
    """A file of the place, into the cache where it does not lie there. JobError GTJ0113 where it is another one than was written."""

    def fill(file: BinaryIO) -> None:
        digest = hashlib.sha256()
        try:
            for block in open_store(uri).read(name):
                digest.update(block)
                file.write(block)
        except (Missing, StoreError) as error:
            raise JobError("GTJ0113", "what the teacher said cannot be read", where=f"{uri}/{name}", why=error.why, how=_AGAIN) from error
        if digest.hexdigest() != there.files[name]["sha256"]:
            why = f"its bytes are not those of {MANIFEST}"
            raise JobError("GTJ0113", "what the teacher said is damaged", where=f"{uri}/{name}", why=why, how=_AGAIN)

    cached(path, fill)


def _there(place: BlobStore, uri: str) -> Taught | None:
    try:
        told = json.loads(place.get(MANIFEST))
        if told.pop("version") != VERSION:
            raise ValueError("it is of another version")
        return Taught(**told)
    except Missing:
        return None
    except StoreError as error:
        raise JobError(
            "GTJ0112", "the store refuses", where=f"{uri}/{MANIFEST}", why=error.why, how="grant the right to read there"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JobError("GTJ0113", f"{MANIFEST} cannot be read", where=f"{uri}/{MANIFEST}", why=str(error), how=_AGAIN) from error


def _same(there: Taught, asked: Taught, where: str, how: str) -> None:
    what = "the teacher was asked something else"
    for name, value in asked.asked.items():
        if there.asked.get(name) != value:
            why = f"{_NAMES.get(name, name)} was {there.asked.get(name)}, and is {value} now"
            raise JobError("GTJ0108", "another teacher was asked" if name == "teacher" else what, where=where, why=why, how=how)
    if (there.data, there.of) != (asked.data, asked.of):
        why = "the data, its tokenizer, its held-out share or contextLength was another: the samples are not the same tokens"
        raise JobError("GTJ0108", "the teacher was asked about other data", where=where, why=why, how=how)


def _put(place: BlobStore, folder: Path, state: Taught) -> None:
    path = folder / f"{MANIFEST}.new"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(state.to_json())
    with written(place, MANIFEST):
        place.upload([(path, MANIFEST)])
