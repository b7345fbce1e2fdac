"""One rank's part of a checkpoint: local files on their way to the store, and back with every byte checked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from trainjobs.checkpoints.manifest import NAME, Corrupt, File, RankManifest, rank_digests, rank_manifest
from trainjobs.checkpoints.record import Commit
from trainjobs.stores.store import BlobStore, Digest, Missing, StoreError, check_key, create, digest

Writer = Callable[[bytes], object]


def put_shard(store: BlobStore, prefix: str, rank: int, files: Mapping[str, Path], *, pause: Callable[[float], None]) -> str:
    """Upload local files under their names, and then their manifest; returns the manifest's digest.

    Raises StoreError, with nothing of the rank left behind that a sweep would not find; ValueError for a rank that has been uploaded under
    this prefix before, and for a name that leads out of its folder.
    """
    name = manifest_key(prefix, rank)
    for sealed in (name, f"{prefix}/{NAME}"):
        with suppress(Missing):
            store.get(sealed)
            raise ValueError(f"{sealed} exists already: a step is written once in an attempt")
    names = sorted(check_key(name) for name in files)
    try:
        stored = store.upload([(files[name], f"{prefix}/rank-{rank}/{name}") for name in names])  # (1) (2)
        parts = tuple(File(name, part.size, part.digest) for name, part in zip(names, stored, strict=True))
        data = RankManifest(rank, parts).encode()
        if create(store, name, data, pause=pause) is not None:  # (3)
            raise ValueError(f"{name} exists already with other contents")
    except StoreError:
        with suppress(StoreError):  # on a full disk, what does not help is in the way
            store.clear(f"{prefix}/rank-{rank}")
        raise
    return digest(data)  # (4)


def files_below(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their path in it. ValueError for what is no plain file."""
    paths = [path for path in sorted(folder.rglob("*")) if not path.is_dir() or path.is_symlink()]
    if odd := [path for path in paths if path.is_symlink() or not path.is_file()]:
        raise ValueError(f"not a plain file: {odd[0]}")
    return {path.relative_to(folder).as_posix(): path for path in paths}


def read_rank(store: BlobStore, prefix: str, rank: int, claimed: str) -> RankManifest:
    """The manifest of a rank. Raises Corrupt when it is not the one that `claimed` is the digest of."""
    key = manifest_key(prefix, rank)
    return rank_manifest(key, _get(store, key), claimed)


def read_ranks(store: BlobStore, commit: Commit) -> list[RankManifest]:
    """The manifests of all ranks of a commit. Raises Corrupt."""
    return [read_rank(store, commit.prefix, rank, told) for rank, told in enumerate(read_digests(store, commit))]


def read_digests(store: BlobStore, commit: Commit) -> list[str]:
    """The digests of the ranks' manifests. Raises Corrupt."""
    key = f"{commit.prefix}/{NAME}"
    claimed = rank_digests(key, _get(store, key), commit.manifest_digest)
    if len(claimed) != commit.world:
        raise Corrupt(key, f"has {len(claimed)} ranks, not {commit.world}")
    return claimed


def fetch_rank(store: BlobStore, prefix: str, shard: RankManifest, destination: Path) -> None:
    """Lay the rank's files in `destination`, in place of what is there: all of them, or no folder of that name. Raises Corrupt, OSError."""
    partial = destination.with_name(f"{destination.name}.partial")
    for old in (partial, destination):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for file in shard.files:
            target = partial / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as opened:
                check_file(store, prefix, shard.rank, file, opened.write)
        partial.rename(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_file(store: BlobStore, prefix: str, shard: RankManifest, name: str) -> bytes:
    """A small file of a rank. Raises Corrupt."""
    blocks: list[bytes] = []
    stream_file(store, prefix, shard, name, blocks.append)
    return b"".join(blocks)


def stream_file(store: BlobStore, prefix: str, shard: RankManifest, name: str, write: Writer) -> None:
    """Pass a file of a rank on, block by block. Raises Corrupt, after the blocks were passed on."""
    for file in shard.files:
        if file.name == name:
            check_file(store, prefix, shard.rank, file, write)
            return
    raise Corrupt(f"{prefix}/rank-{shard.rank}/{name}", "is not in the rank's manifest")


def check_file(store: BlobStore, prefix: str, rank: int, file: File, write: Writer | None = None) -> None:
    """Read a file of a checkpoint to its end, passing its blocks on. Raises Corrupt, after the blocks were passed on."""
    key = f"{prefix}/rank-{rank}/{file.name}"
    try:
        size, found = 0, Digest(file.digest.partition(":")[0])
    except ValueError as error:
        raise Corrupt(key, str(error)) from error
    for block in _blocks(store, key):
        size += len(block)
        found.update(block)
        if write is not None:
            write(block)
    if size != file.size:
        raise Corrupt(key, f"has {size} bytes, not {file.size}")
    if str(found) != file.digest:
        raise Corrupt(key, f"digest is {found}, not {file.digest}")


def manifest_key(prefix: str, rank: int) -> str:
    return f"{prefix}/rank-{rank}.json"


def _get(store: BlobStore, key: str) -> bytes:
    try:
        return store.get(key)
    except Missing as error:
        raise Corrupt(key, error.why) from error


def _blocks(store: BlobStore, key: str) -> Iterator[bytes]:
    try:
        yield from store.read(key)
    except Missing as error:
        raise Corrupt(key, error.why) from error
