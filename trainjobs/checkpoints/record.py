"""The log's records as bytes and as values.

    {"format": 1, "kind": "commit", "seq": 7, "attempt": 2, "time": 1763600000.0, "nonce": "9f...", "body": {...}, "sum": "sha256:..."}

`sum` is the digest of the record without it, keys sorted, no spaces: a record stands alone and must show its own damage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainjobs.stores.store import digest

FORMAT = 1
Kind = Literal["commit", "fence", "tombstone", "quarantine", "unreadable"]
KINDS: tuple[Kind, ...] = ("commit", "fence", "tombstone", "quarantine")


@dataclass(frozen=True)
class Record:
    """One number of the log. `unreadable`: the number is taken, by what nobody can tell."""

    seq: int
    kind: Kind
    attempt: int = 0
    time: float = 0.0
    body: Mapping[str, Any] | None = None

    @property
    def kills(self) -> tuple[int, ...]:
        """The numbers of the commits that this record takes out of use."""
        if self.body is None or self.kind not in ("tombstone", "quarantine"):
            return ()
        return tuple(self.body["commits"])


@dataclass(frozen=True)
class Commit:
    """A checkpoint that exists. `committed_at` in seconds since the epoch, by the writer's clock; `metadata` is the trainer's own."""

    seq: int
    attempt: int
    step: int
    samples: int
    prefix: str
    manifest_digest: str
    committed_at: float
    metadata: Mapping[str, Any]
    metrics: Mapping[str, float]
    size_bytes: int
    world: int


@dataclass(frozen=True)
class CommitStatus:
    """A commit and what became of it. `since` and `why` concern the record that took it out of use."""

    commit: Commit
    state: Literal["live", "deleted", "corrupt"]
    since: float = 0.0
    why: str = ""


def encode(record: Record, nonce: str) -> bytes:
    fields = {
        "format": FORMAT,
        "kind": record.kind,
        "seq": record.seq,
        "attempt": record.attempt,
        "time": record.time,
        "nonce": nonce,
        "body": record.body,
    }
    return canonical(fields | {"sum": digest(canonical(fields))})


def decode(seq: int, data: bytes) -> Record:
    """The record under number `seq`; of kind `unreadable` when it is damaged, of another format or of another place."""
    try:
        fields = json.loads(data)
        claimed = fields.pop("sum")
        if claimed != digest(canonical(fields)) or fields["format"] != FORMAT or fields["seq"] != seq or fields["kind"] not in KINDS:
            return Record(seq, "unreadable")
        return Record(seq, fields["kind"], fields["attempt"], fields["time"], fields["body"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return Record(seq, "unreadable")


def commit_of(record: Record) -> Commit:
    assert record.body is not None
    body = record.body
    return Commit(
        seq=record.seq,
        attempt=record.attempt,
        step=body["step"],
        samples=body["samples"],
        prefix=body["prefix"],
        manifest_digest=body["manifest"],
        committed_at=record.time,
        metadata=body["metadata"],
        metrics=body["metrics"],
        size_bytes=body["size"],
        world=body["world"],
    )


def canonical(value: object) -> bytes:
    """JSON that is the same for equal values. ValueError for NaN and infinities, which JSON has not."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics a record can hold: a loss that has run away must not cost the checkpoint."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
