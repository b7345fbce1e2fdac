"""A trained model that a job goes on from: its files on this machine, and what they are.

A folder is read where it lies. What lies elsewhere is fetched into the cache, once for all processes of a machine. Of a model of the hub
the commit is pinned: a run stays with the one it began with. Files are known by the digests of their contents, wherever they lie, so a
checkpoint can name the base that its adapters belong to.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainjobs.api.diffusion_pretrained import Pipeline
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.pretrained import Base
from trainjobs.data import pipelines
from trainjobs.data.places.open import AMID, BEFORE, open_place
from trainjobs.data.places.place import Object, Place, Ranks
from trainjobs.stores.patience import Patience
from trainjobs.stores.store import Digest

CONFIG, TENSORS = "config.json", ".safetensors"
BESIDE = (
    *("generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "tokenizer.model", "spiece.model", "preprocessor_config.json"),
)
LATER = ("preprocessor_config.json",)  # checkpoints of before name a base without these
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
SLOT = "base"  # of a commit's metadata
BLOCK = 8 << 20


@dataclass(frozen=True)
class Pretrained:
    """`files` are digests by name. `uri` is the source with its revision pinned, `field` where a manifest names it."""

    source: str
    uri: str
    folder: Path
    files: Mapping[str, str]
    field: str = "language.base"

    @property
    def digest(self) -> str:
        """Of all files together."""
        return f"sha256:{hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()}"

    @property
    def account(self) -> dict[str, Any]:
        """What a commit keeps, and `compare` looks at."""
        return {"source": self.source, "uri": self.uri, "digest": self.digest, "files": dict(self.files)}

    def json(self, name: str) -> dict[str, Any]:
        """What a file says; {} where there is none. JobError GTJ0109."""
        path = self.folder / name
        if name not in self.files:
            return {}
        try:
            found = json.loads(path.read_bytes())
            if not isinstance(found, dict):
                raise ValueError("it is no object")
            return found
        except (OSError, ValueError) as error:
            raise unusable(f"{name} cannot be read", str(path), str(error), "fetch or save the model again") from error


def base_of(spec: Spec) -> Base | None:
    """What a job goes on from, where it does: a language model, or a pipeline of diffusers."""
    return (spec.language.base if spec.language else None) or (spec.diffusion.pretrained if spec.diffusion else None)


def field_of(base: Base) -> str:
    return "diffusion.pretrained" if isinstance(base, Pipeline) else "language.base"


def of_job(spec: Spec, cache: Path, ranks: Ranks, before: Mapping[str, Any] | None = None) -> Pretrained | None:
    """`opened`, of the base of a job."""
    return opened(base_of(spec), cache, ranks, before)


def opened(base: Base | None, cache: Path, ranks: Ranks, before: Mapping[str, Any] | None = None) -> Pretrained | None:
    """The base of a job, on every rank's machine; None where it has none. Every rank must call it. `before` is the account of the commit
    that the run goes on from.

    JobError GTJ0118 when it is not there, GTJ0109 when it cannot be used, GTJ0208 when it is another one than it was, GTJ0112 and GTJ0219
    when a store refuses or does not answer, GTJ0114 when the cache cannot be written. Every rank raises the same.
    """
    if base is None:
        return None
    uri = together(ranks, lambda: pinned(base, before) if ranks.rank == 0 else "")[0]
    found = together(ranks, lambda: fetched(base, uri, cache))
    mine: Pretrained = found[ranks.rank]
    for rank, other in enumerate(found):
        if other.files != found[0].files:
            why = f"{differing(found[0].files, other.files)} on the machines of rank 0 and rank {rank}"
            raise JobError(
                "GTJ0208", "the base is not the same everywhere", where=base.source, why=why, how="give every worker the same folder"
            )
    if before is not None:
        compare(before, mine)
    return mine


def together(ranks: Ranks, act: Any) -> list[Any]:
    """What every rank's own part gives, on every rank; the first error of any is raised on all."""
    try:
        mine: Any = act()
    except (JobError, OSError) as error:
        mine = error
    found = ranks.gather(mine)
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found


def compare(before: Mapping[str, Any], now: Pretrained) -> None:
    """See that the base is the one that a commit's weights belong to. JobError GTJ0208."""
    later = {name: digest for name, digest in now.files.items() if name in before["files"] or name not in LATER}
    if before["digest"] != now.digest and before["files"] != later:
        field = "revision" if before["source"] == now.source and now.uri.startswith("hf://") else "source"
        why = f"{differing(before['files'], now.files)} in {now.uri}; the checkpoint's weights belong to {before['uri']} as it was"
        how = "put the base back as it was, or start afresh with gtj run --fresh"
        raise JobError("GTJ0208", "the base is another one than the checkpoint's", where=f"{now.field}.{field}", why=why, how=how)


def look(base: Base) -> None:
    """See that there is a model, cheaply: nothing is fetched. JobErrors of `opened`."""
    with _told(base):
        place = _place(pinned(base, None), BEFORE)
        _files(base, place, True)


def fetched(base: Base, uri: str, cache: Path, weights: bool = True) -> Pretrained:
    """The files of a base whose URI is pinned; without `weights` only those beside them, and no safetensors are asked for."""
    place = _place(uri)
    with _told(base):
        objects = _files(base, place, weights)
        if all(one.path is not None for one in objects) and uri.startswith("file://"):
            folder = objects[0].path.parent if objects[0].path else cache  # the first is config.json or model_index.json
        else:
            names = json.dumps([[one.name, one.tag] for one in objects])
            folder = cache / "base" / hashlib.sha256(f"{uri}\n{names}".encode()).hexdigest()[:24]
        with alone(cache / "base"):
            for one in objects:
                _fetch(place, one, folder / one.name)
            files = digests(folder, objects, cache / "base")
    return Pretrained(base.source, uri, folder, files, field_of(base))


def pinned(base: Base, before: Mapping[str, Any] | None) -> str:
    """The URI with its revision resolved: as the run began with it, where it goes on from the same source."""
    source = base.source.rstrip("/")
    if not source.startswith("hf://"):
        return source
    if before is not None and before["source"] == base.source and base.revision is None:
        return str(before["uri"])
    with _told(base):
        return _place(f"{source}@{base.revision}" if base.revision else source).uri


def _place(uri: str, seconds: float = AMID) -> Place:
    if uri.startswith("hf://"):
        from trainjobs.data.places.hub import open_model

        return open_model(uri, patience=Patience(seconds))
    return open_place(uri, patience=Patience(seconds))


@contextmanager
def _told(base: Base) -> Iterator[None]:
    """What is missing is the base, not data: GTJ0118."""
    try:
        yield
    except JobError as error:
        if error.code != "GTJ0113":
            raise
        how = f"mend {field_of(base)}.source, or put the model there" if "data" in error.how else error.how
        raise JobError("GTJ0118", "the base does not exist or is not whole", where=base.source, why=error.what, how=how) from error


def _files(base: Base, place: Place, weights: bool) -> list[Object]:
    return (pipelines.chosen if isinstance(base, Pipeline) else _chosen)(place.listed().objects, place, weights)


def _chosen(objects: Sequence[Object], place: Place, weights: bool) -> list[Object]:
    """What belongs to the model, by name. JobError GTJ0118, GTJ0109."""
    there = {one.name: one for one in objects if "/" not in one.name}
    if CONFIG not in there:
        why, how = f"{CONFIG} is missing", "name the folder that transformers' save_pretrained wrote"
        raise JobError("GTJ0118", "there is no model", where=place.uri, why=why, how=how)
    tensors = [name for name in there if name.endswith(TENSORS)] if weights else []
    if weights and not tensors:
        if pickled := sorted(name for name in there if name.endswith(PICKLED)):
            why = f"{pickled[0]} is not in the format safetensors, and loading others may run code"
            raise unusable(
                "the base has no safetensors", place.uri, why, "convert it: model.save_pretrained(folder) of transformers writes them"
            )
        raise JobError(
            "GTJ0118", "the base has no weights", where=place.uri, why="no .safetensors lie there", how="copy the model as a whole"
        )
    shards = [name for name in tensors if name.startswith("model")] or tensors
    return [there[name] for name in sorted({CONFIG, *shards, *(name for name in BESIDE if name in there)})]


@contextmanager
def alone(folder: Path, what: str = "the base") -> Iterator[None]:
    """Among the processes that share the folder. JobError GTJ0114, of what is fetched."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("wb") as lock:
            with suppress(OSError):  # no locks there: the same is done several times
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        where, why = str(error.filename or folder), error.strerror or str(error)
        raise JobError(
            "GTJ0114", f"{what} cannot be fetched", where=where, why=why, how="free space there, or choose another run folder"
        ) from error


def _fetch(place: Place, one: Object, to: Path) -> None:
    if to.exists() and (one.path == to or to.stat().st_size == one.size):
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f"{to.name}.{os.getpid()}.partial")
    try:
        place.fetch(one, partial)
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)


def digests(folder: Path, objects: Sequence[Object], cache: Path) -> dict[str, str]:
    """Of the contents; those that were looked at before, and have the same size and time, are not read again."""
    stats = {one.name: (folder / one.name).stat() for one in objects}
    told = json.dumps([str(folder), {name: [found.st_size, found.st_mtime_ns, found.st_ino] for name, found in stats.items()}])
    known = cache / f"digests-{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
    with suppress(OSError, ValueError):
        found: dict[str, str] = json.loads(known.read_bytes())
        return found
    files = {one.name: _digest(folder / one.name) for one in objects}
    partial = known.with_name(f"{known.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(files))
    partial.replace(known)
    return files


def _digest(path: Path) -> str:
    found = Digest()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return str(found)


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} differ{'s' if len(names) == 1 else ''}"


def unusable(what: str, where: str, why: str, how: str) -> JobError:
    return JobError("GTJ0109", what, where=where, why=why, how=how)
