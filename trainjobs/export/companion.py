"""The frozen autoencoder of a latent diffusion model, as files: found by its URI, on this machine, and known by their contents.

What the URI may name: a folder with config.json and weights, by itself or in vae/, as diffusers writes it and `gtj checkpoints export` too;
or a run or a checkpoint of ours, whose newest commit, or which, is exported into the cache. A folder is read where it lies, everything else
is fetched into the cache, once for all processes of a machine. What may change its meaning is pinned: a branch of the hub to its commit, a
run to its checkpoint. A commit of the diffusion model keeps the digest, and a run goes on only with the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.uris import file_path
from trainjobs.checkpoints import Checkpoints, Commit, locate
from trainjobs.checkpoints.checkpoints import URI
from trainjobs.checkpoints.tensors import SUFFIX
from trainjobs.data.places.hub import open_model
from trainjobs.data.places.open import AMID
from trainjobs.data.places.place import Object, Place, Ranks
from trainjobs.data.pretrained import Pretrained, alone, differing, digests, together, unusable
from trainjobs.export.autoencoders import CONFIG, FOLDER, WEIGHTS, is_one
from trainjobs.export.export import FACTS, Exported, export
from trainjobs.export.huggingface import text
from trainjobs.stores.open import open_store
from trainjobs.stores.patience import Patience
from trainjobs.stores.store import BlobStore, Missing, StoreError, check_key

FIELD = "diffusion.latents.autoencoder"
SLOT = "latents"  # of a commit's metadata
FOLDERS = ("", "vae/")  # in which it may lie
PICKLED = (f"{WEIGHTS}.bin", "pytorch_model.bin", "model.ckpt")
INDEX = f"{WEIGHTS}{SUFFIX}.index.json"
ADVICE = "name a run, a checkpoint or an export of a job with architecture autoencoder-kl, or a folder of diffusers"


def opened(source: str, cache: Path, ranks: Ranks, before: Mapping[str, Any] | None = None) -> Pretrained:
    """The autoencoder on every rank's machine; every rank must call it. `before` is the account of the commit that the run goes on from.

    JobError GTJ0118 when it is not there, GTJ0109 when it cannot be used, GTJ0208 when it is another one than it was, GTJ0112 and GTJ0219
    when a store refuses or does not answer, GTJ0114 when the cache cannot be written. Every rank raises the same.
    """
    uri = together(ranks, lambda: pinned(source, before) if ranks.rank == 0 else "")[0]
    found = together(ranks, lambda: fetched(source, uri, cache))
    mine: Pretrained = found[ranks.rank]
    for rank, other in enumerate(found):
        if other.files != found[0].files:
            why = f"{differing(found[0].files, other.files)} on the machines of rank 0 and rank {rank}"
            how = "give every worker the same folder"
            raise JobError("GTJ0208", "the autoencoder is not the same everywhere", where=source, why=why, how=how)
    if before is not None:
        compare(before, mine)
    return mine


def compare(before: Mapping[str, Any], now: Pretrained) -> None:
    """See that it is the one that a commit's weights belong to. JobError GTJ0208."""
    if before["digest"] != now.digest:
        why = f"{differing(before['files'], now.files)} in {now.uri}; the checkpoint's latents are those of {before['uri']} as it was"
        how = "put the autoencoder back as it was, or start afresh with gtj run --fresh"
        raise JobError("GTJ0208", "the autoencoder is another one than the checkpoint's", where=FIELD, why=why, how=how)


def pinned(source: str, before: Mapping[str, Any] | None = None) -> str:
    """The URI with what may change resolved: as the run began with it, where it goes on with the same source."""
    if before is not None and before["source"] == source:
        return str(before["uri"])
    if source.startswith("hf://"):
        return open_model(source.rstrip("/"), patience=Patience(AMID)).uri
    root, store = source.rstrip("/"), open_store(source.rstrip("/"))
    if any(_get(store, f"{folder}{CONFIG}") is not None for folder in FOLDERS):
        return root
    for uri in (root, f"{root}/checkpoints"):
        try:
            checkpoints, commit = locate(uri)
        except JobError as error:
            if error.code != "GTJ0118":
                raise
            continue
        return checkpoints.uri(commit)
    why = f"there is neither {CONFIG} nor a checkpoint"
    raise JobError("GTJ0118", f"there is no autoencoder at {source}", where=FIELD, why=why, how=ADVICE)


def fetched(source: str, uri: str, cache: Path) -> Pretrained:
    """The files of one whose URI is pinned."""
    aside = cache / "autoencoder"
    folder = aside / hashlib.sha256(uri.encode()).hexdigest()[:24]
    with alone(aside, "the autoencoder"):
        if (match := URI.fullmatch(uri)) and match["prefix"]:
            names = _exported(uri, folder)
        elif uri.startswith("hf://"):
            names = _of_hub(uri, folder)
        else:
            folder, names = _of_store(uri, folder)
        objects = [Object(name, 0, "", folder / name) for name in names]
        return Pretrained(source, uri, folder, digests(folder, objects, aside))


def whole(
    checkpoints: Checkpoints,
    commit: Commit,
    folder: Path,
    *,
    weights: str | None,
    dtype: str,
    adapter: bool = False,
    merge: bool = False,
    style: str | None = None,
    plain: bool = False,
    complete: Callable[[Path], bool] | None = None,
) -> Exported:
    """`export`, and of a diffusion model of latents its autoencoder beside it, so that what was exported draws by itself. JobErrors of
    `export` and of `opened`."""
    account = commit.metadata.get(SLOT)
    how: dict[str, Any] = {"adapter": adapter, "merge": merge, "style": style, "plain": plain, "complete": complete}
    if account is None:
        return export(checkpoints, commit, folder, weights=weights, dtype=dtype, **how)
    with tempfile.TemporaryDirectory(prefix="gentrain-autoencoder-") as scratch:
        found = fetched(str(account["source"]), str(account["uri"]), Path(scratch))
        compare(account, found)
        made = export(checkpoints, commit, folder, weights=weights, dtype=dtype, **how)
        try:
            (folder / FOLDER).mkdir()
            for name in found.files:
                shutil.copyfile(found.folder / name, folder / FOLDER / name)
            told = json.loads((folder / FACTS).read_bytes())
            (folder / FACTS).write_bytes(text({**told, "autoencoder": [f"{FOLDER}/{name}" for name in sorted(found.files)]}))
        except OSError as error:
            shutil.rmtree(folder)  # half of it would draw nothing
            why, out = error.strerror or str(error), "free disk space there, or make it writable"
            raise JobError("GTJ0114", "the export cannot be written", where=str(folder), why=why, how=out) from error
    return made


def _exported(uri: str, folder: Path) -> list[str]:
    """A checkpoint of ours, as an export in the cache."""
    if not folder.exists():
        checkpoints, commit = locate(uri)
        if not is_one(commit.metadata.get("spec", {})):
            why, how = "the job that it is of trained something else", ADVICE
            raise JobError("GTJ0109", "the checkpoint holds no autoencoder-kl", where=uri, why=why, how=how)
        export(checkpoints, commit, folder, weights=None, dtype="fp32")
    return [CONFIG, *sorted(path.name for path in folder.glob(f"{WEIGHTS}*"))]


def _of_store(uri: str, folder: Path) -> tuple[Path, list[str]]:
    """A folder of this machine as it is; one of a bucket, fetched."""
    store = open_store(uri)
    inner = next((inner for inner in FOLDERS if _get(store, f"{inner}{CONFIG}") is not None), None)
    if inner is None:
        raise JobError("GTJ0118", f"there is no autoencoder at {uri}", where=FIELD, why=f"{CONFIG} is missing", how=ADVICE)
    names = [CONFIG, *_weights(lambda name: _get(store, f"{inner}{name}"))]
    if uri.startswith("file://"):
        folder = Path(file_path(uri)) / inner
        if missing := next((name for name in names if not (folder / name).is_file()), None):
            there = {path.name for path in folder.iterdir()}
            raise _without(missing, uri, there)
        return folder, names
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            try:
                _save(store, f"{inner}{name}", folder / name)
            except Missing as error:
                there = {entry.key.removeprefix(inner) for entry in store.entries(inner.rstrip("/"))}
                raise _without(name, uri, there) from error
    return folder, names


def _of_hub(uri: str, folder: Path) -> list[str]:
    place: Place = open_model(uri, patience=Patience(AMID))
    objects = {one.name: one for one in place.listed().objects}
    inner = next((inner for inner in FOLDERS if f"{inner}{CONFIG}" in objects), None)
    if inner is None:
        raise JobError("GTJ0118", f"there is no autoencoder at {uri}", where=FIELD, why=f"{CONFIG} is missing", how=ADVICE)
    names = [
        CONFIG, *_weights(lambda name: place.contents(objects[f"{inner}{name}"]) if f"{inner}{name}" in objects else None)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (found := objects.get(f"{inner}{name}")) is None:
            raise _without(name, uri, {one.removeprefix(inner) for one in objects})
        if not (folder / name).exists():
            partial = folder / f"{name}.partial"
            partial.unlink(missing_ok=True)
            place.fetch(found, partial)
            partial.replace(folder / name)
    return names


def _weights(get: Any) -> list[str]:
    """The names of the files of weights, the index of several among them."""
    index = get(INDEX)
    if index is None:
        return [f"{WEIGHTS}{SUFFIX}"]
    return [INDEX, *sorted({check_key(name) for name in json.loads(index)["weight_map"].values()})]


def _without(name: str, uri: str, there: set[str]) -> JobError:
    if pickled := next((one for one in PICKLED if one in there), None):
        why = f"{pickled} is not in the format safetensors, and loading others may run code"
        return unusable("the autoencoder has no safetensors", uri, why, "convert it: save_pretrained(folder) of diffusers writes them")
    how = "copy the autoencoder as a whole"
    return JobError("GTJ0118", "the autoencoder has no weights", where=uri, why=f"{name} is missing", how=how)


def _get(store: BlobStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except Missing:
        return None
    except StoreError as error:
        raise _unreachable(store, error) from error


def _save(store: BlobStore, key: str, to: Path) -> None:
    """Raises Missing."""
    partial = to.with_name(f"{to.name}.partial")
    try:
        with partial.open("wb") as file:
            for block in store.read(key):
                file.write(block)
        partial.replace(to)
    except StoreError as error:
        raise _unreachable(store, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _unreachable(store: BlobStore, error: StoreError) -> JobError:
    where, how = f"{store.uri}/{error.key}", f"give the workers the right to read it, or correct {FIELD}"
    return JobError("GTJ0112", "the autoencoder cannot be read", where=where, why=error.why, how=how)
