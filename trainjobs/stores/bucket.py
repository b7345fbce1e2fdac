"""What differs between the object stores of the clouds: a handful of verbs, each one request, and what their errors mean.

`s3.py`, `gs.py` and `az.py` implement `Bucket` with the platform's own SDK, its retries turned off. `objects.py` makes a BlobStore of any
of them, and data is read from any of them: `patience.py` retries, `ranges.py` reads large objects side by side. So every store behaves
alike under faults, and a fault that is survived on one is survived on all.

A `path` is a full object name, the store's prefix included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from trainjobs.stores.store import Reason

CONNECT, ANSWER = 10.0, 30.0  # seconds until a connection stands, and between two bytes of an answer
CONNECTIONS = 64  # that are kept open, at most

Kind = Literal["missing", "condition", "busy"] | Reason


@dataclass(frozen=True)
class Trouble:
    """What an SDK's exception means. `busy`: ask again. `condition`: "if absent" or "if unchanged" did not hold. `credentials`: none, or
    not good ones; `denied`: good ones without the right."""

    kind: Kind
    why: str


@dataclass(frozen=True)
class Piece:
    """A range of an object: `total` is the whole object's bytes, `version` names these contents."""

    data: bytes
    total: int
    version: str


@dataclass(frozen=True)
class Found:
    """An object in a listing: `size` in bytes, `version` as `get` takes it. `md5`, in hexadecimal digits, where the store keeps one."""

    path: str
    size: int
    version: str = ""
    md5: str = ""


@dataclass(frozen=True)
class Page:
    """A piece of a listing; `token` asks for the next one, and is empty at the end."""

    objects: tuple[Found, ...]
    token: str = ""


class Bucket(Protocol):
    """Every verb is one request (`finish` and `folders`: as many as it takes), may be repeated, and raises the SDK's own exceptions."""

    @property
    def uri(self) -> str:
        """scheme://bucket/prefix, without a trailing slash."""

    @property
    def prefix(self) -> str:
        """What stands before every key, without slashes at its ends."""

    def put(self, path: str, data: bytes, *, absent: bool) -> None:
        """Store an object; `absent`: only if there is none."""

    def get(self, path: str, start: int, length: int, version: str) -> Piece:
        """At most `length` bytes from `start`, of `version` unless that is empty."""

    def list(self, prefix: str, token: str = "") -> Page:
        """Objects whose path begins with `prefix`: the first some thousand, or those that follow a page whose `token` is given."""

    def folders(self, prefix: str) -> Iterable[str]:
        """The distinct beginnings, up to the next slash behind `prefix`, of the paths that begin with `prefix`."""

    def delete(self, path: str) -> None:
        """Delete an object; one that is not there may raise or not."""

    def begin(self, path: str) -> str:
        """Begin an upload in parts; returns its name."""

    def part(self, path: str, upload: str, number: int, data: bytes) -> str:
        """Send part `number`, from 0; returns what `finish` must be told of it."""

    def finish(self, path: str, upload: str, parts: Sequence[str]) -> None:
        """Make the parts, in this order, the object. Repeated after an answer was lost, it succeeds again."""

    def abort(self, path: str, upload: str) -> None:
        """Forget an upload."""

    def sweep(self, prefix: str) -> None:
        """Forget all uploads that were begun below `prefix` and never finished."""

    def action(self, verb: str) -> str:
        """A verb of this protocol as the platform's access policies call it."""

    def identity(self) -> str:
        """As whom the requests are made. May raise anything."""

    def trouble(self, error: Exception) -> Trouble | None:
        """What an exception means; None for one that is no answer of the store and no failure on the way to it."""


def pooled(session: Any) -> None:
    """Let a session of `requests` keep as many connections as there are requests side by side; by itself it keeps ten, and makes the
    others anew each time."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, type(session.adapters[scheme])(pool_maxsize=CONNECTIONS))


def by_status(status: int, why: str) -> Trouble:
    """What an HTTP status means where the store gives no better word."""
    if status == 404:
        return Trouble("missing", why)
    if status == 412:
        return Trouble("condition", why)
    if status in (401, 403):
        return Trouble("credentials" if status == 401 else "denied", why)
    if status == 507:
        return Trouble("full", why)
    if status in (408, 429) or status >= 500:
        return Trouble("busy", why)
    return Trouble("failed", why)
