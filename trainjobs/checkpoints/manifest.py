"""The two files that say what a checkpoint consists of. Equal contents are equal bytes: writing one twice is writing it once.

rank-<r>.json   {"format": 1, "rank": 0, "files": [{"name": "model.pt", "size": 123, "digest": "sha256:..."}]}
MANIFEST.json   {"format": 1, "step": 100, "samples": 6400, "attempt": 1, "world": 2, "size": 246,
                 "ranks": [{"rank": 0, "digest": "sha256:...", "size": 123, "files": 1}], "metrics": {...}, "metadata": {...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.checkpoints.record import FORMAT
from trainjobs.stores.store import check_key, digest

NAME = "MANIFEST.json"


class Corrupt(JobError):
    """What is stored under the key `file` is not what was committed."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__("GTJ0209", "checkpoint is corrupt", where=file, why=why, how="resume takes the checkpoint before it")
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Corrupt, (self.file, self.why))


@dataclass(frozen=True)
class File:
    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class RankManifest:
    rank: int
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def encode(self) -> bytes:
        files = [{"name": file.name, "size": file.size, "digest": file.digest} for file in self.files]
        return _text({"format": FORMAT, "rank": self.rank, "files": files})


@dataclass(frozen=True)
class Manifest:
    """`ranks[r]` is rank r's manifest and its digest."""

    step: int
    samples: int
    attempt: int
    ranks: tuple[tuple[RankManifest, str], ...]
    metrics: Mapping[str, float]
    metadata: Mapping[str, Any]

    @property
    def size(self) -> int:
        return sum(rank.size for rank, _ in self.ranks)

    def encode(self) -> bytes:
        ranks = [{"rank": rank.rank, "digest": told, "size": rank.size, "files": len(rank.files)} for rank, told in self.ranks]
        return _text(
            {
                "format": FORMAT,
                "step": self.step,
                "samples": self.samples,
                "attempt": self.attempt,
                "world": len(self.ranks),
                "size": self.size,
                "ranks": ranks,
                "metrics": dict(self.metrics),
                "metadata": dict(self.metadata),
            }
        )


def rank_digests(key: str, data: bytes, claimed: str) -> list[str]:
    """The digests of the rank manifests, by rank, out of the bytes of a MANIFEST.json. Raises Corrupt."""
    fields = _checked(key, data, claimed)
    try:
        return [str(rank["digest"]) for rank in fields["ranks"]]
    except (KeyError, TypeError) as error:
        raise Corrupt(key, f"is no manifest ({error})") from error


def rank_manifest(key: str, data: bytes, claimed: str) -> RankManifest:
    """The rank manifest in `data`. Raises Corrupt, also for a file name that leads out of the folder."""
    fields = _checked(key, data, claimed)
    try:
        files = tuple(File(check_key(file["name"]), int(file["size"]), str(file["digest"])) for file in fields["files"])
        return RankManifest(int(fields["rank"]), files)
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(key, f"is no rank manifest ({error})") from error


def _checked(key: str, data: bytes, claimed: str) -> dict[str, Any]:
    if digest(data) != claimed:
        raise Corrupt(key, f"digest is {digest(data)}, not {claimed}")
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise Corrupt(key, "is no JSON") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise Corrupt(key, f"is not of format {FORMAT}")
    return fields


def _text(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"
