"""What the commit log asks of a store of objects, and nothing more.

Seven operations that S3, Google Cloud Storage, Azure Blob and a folder all have. A key is a relative path with `/`. What must hold:

- An object is visible whole or not at all, at every moment and after every crash.
- `put_if_absent` lets exactly one of several concurrent writers win (If-None-Match, ifGenerationMatch=0, link(2)).
- When an operation returns, its effect is durable and every later operation of anybody sees it.
- When it raises, nobody knows: the effect may have happened, or may yet happen. `create` below turns that into a fact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from blake3 import blake3

TEMPORARY = ".tmp-"  # file names that start like this are a store's own business
Reason = Literal["full", "denied", "credentials", "no bucket", "region", "failed"]


class StoreError(Exception):
    """An operation failed. `reason`: all but `failed`, which is no answer, will not change by asking again."""

    def __init__(self, key: str, why: str, reason: Reason = "failed") -> None:
        super().__init__(key, why, reason)
        self.key, self.why, self.reason = key, why, reason


class Missing(Exception):
    """There is no such object, or its medium cannot read it back."""

    def __init__(self, key: str, why: str = "is missing") -> None:
        super().__init__(key, why)
        self.key, self.why = key, why


@dataclass(frozen=True)
class Entry:
    """An object in a listing. `size` in bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Stored:
    """What an upload stored: `size` in bytes, `digest` as `Digest` writes it, of the stored bytes."""

    size: int
    digest: str


class BlobStore(Protocol):
    """Every operation raises StoreError when it cannot be carried out."""

    @property
    def uri(self) -> str:
        """Where the keys begin, without a trailing slash."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create a small object. False: it was there already, and is unchanged."""

    def upload(self, files: Sequence[tuple[Path, str]]) -> list[Stored]:
        """Store local files under keys, in place of what an upload that failed left there; all of them durable on return."""

    def get(self, key: str) -> bytes:
        """A small object. Raises Missing."""

    def read(self, key: str) -> Iterator[bytes]:
        """An object of any size in blocks. Raises Missing, perhaps midway."""

    def entries(self, folder: str) -> list[Entry]:
        """All objects below `folder` at any depth, by key; none when there is no such folder."""

    def folders(self, folder: str) -> list[str]:
        """The folders directly in `folder` ("" is the root), with their path from the root, sorted."""

    def clear(self, folder: str) -> None:
        """Delete all that is below `folder`, in any order; interrupted, some of it is left."""


def create(store: BlobStore, key: str, data: bytes, *, pause: Callable[[float], None], tries: int = 5) -> bytes | None:
    """Create an object whose bytes are the writer's own. None: it is there. Otherwise: the bytes of somebody else who was first.

    A refusal or a missing answer proves nothing: a create that was retried below us is refused because of itself, and one whose answer was
    lost may have happened. What can be read back decides. Raises StoreError when the store answers neither way.
    """
    for attempt in range(tries):
        try:
            if store.put_if_absent(key, data):
                return None
        except StoreError as error:
            if error.reason != "failed":
                raise
            trouble = error
        else:
            trouble = StoreError(key, "refused as existing, and not there")
        try:
            found = store.get(key)
        except (StoreError, Missing):
            if attempt == tries - 1:
                raise trouble from None
            pause(0.1 * 2**attempt)
            continue
        return None if found == data else found
    raise ValueError("tries must be positive")


def digest(data: bytes) -> str:
    """Of records and manifests: any program can check them."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Digest:
    """The digest of a file that comes in blocks; `str` is how it is written. ValueError for an algorithm that nobody knows here.

    BLAKE3 takes a quarter of SHA-256's processor time, and hashing is most of what an upload costs beside the bytes' way itself. The
    algorithm's name stands in front, so that another can follow it one day.
    """

    def __init__(self, algorithm: str = "blake3") -> None:
        if algorithm not in ("blake3", "sha256"):
            raise ValueError(f"no digest is called {algorithm}")
        self._algorithm, self._hash = algorithm, blake3() if algorithm == "blake3" else hashlib.sha256()

    def update(self, block: bytes | memoryview) -> None:
        self._hash.update(block)

    def __str__(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"


def check_key(key: str) -> str:
    """`key` itself when it is a plain relative path. ValueError otherwise: a manifest from a bucket must not reach outside its folder."""
    parts = key.split("/")
    if any(part in ("", ".", "..") or part.startswith(TEMPORARY) for part in parts) or "\\" in key or "\0" in key:
        raise ValueError(f"not a key: {key!r}")
    return key
