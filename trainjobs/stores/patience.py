"""How a request to a bucket is repeated, and what its end means: one way for checkpoints and for data.

A request that gets no answer, or one that says "later" (408, 429, 5xx, a connection that breaks or stays silent), is repeated after a
growing random pause until `Patience` is at an end. Refusals are not repeated. Timeouts are bucket.CONNECT and bucket.ANSWER.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from typing import TypeVar

from trainjobs.stores.bucket import Bucket, Found, Trouble
from trainjobs.stores.store import Missing, Reason, StoreError

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a request is repeated: `seconds` in all, with pauses of up to 0.1, 0.2, 0.4 ... 8 s. `chance` gives numbers in [0, 1)."""

    seconds: float = 120.0
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def delay(self, tries: int) -> float:
        return float(min(8.0, 0.1 * 2 ** (tries - 1)) * (0.5 + 0.5 * self.chance()))


class Refused(Exception):
    """The condition of a request did not hold."""


class NoAnswer(StoreError):
    """The store said nothing, or "later", until patience was at an end."""


def ask(bucket: Bucket, patience: Patience, verb: str, key: str, act: Callable[[], T]) -> T:
    """The answer to a request; `verb` is the method of Bucket that `act` calls, `key` what errors name. Raises Missing, Refused,
    NoAnswer, StoreError."""
    began, tries = patience.now(), 0
    while True:
        tries += 1
        try:
            return act()
        except Exception as error:
            trouble = bucket.trouble(error)
            if trouble is None and _on_the_way(error):
                trouble = Trouble("busy", str(error) or type(error).__name__)
            if trouble is None:
                raise
            if trouble.kind == "missing":
                raise Missing(key) from error
            if trouble.kind == "condition":
                raise Refused(key) from error
            action = bucket.action(verb)
            if trouble.kind != "busy":
                raise _refusal(bucket, key, action, trouble.kind, trouble.why) from error
            delay = patience.delay(tries)
            spent = patience.now() - began
            if spent + delay > patience.seconds:
                why = f"{action} failed {tries} times in {spent:.0f} s, the last time with: {trouble.why}"
                raise NoAnswer(key, why) from error
            patience.pause(delay)


def listing(bucket: Bucket, patience: Patience, prefix: str, key: str) -> Iterator[Found]:
    """All objects whose path begins with `prefix`. Each page is a request of its own: a listing of millions does not begin anew for one
    answer that was lost."""
    token = ""
    while True:
        page = ask(bucket, patience, "list", key, partial(bucket.list, prefix, token))
        yield from page.objects
        token = page.token
        if not token:
            return


def _refusal(bucket: Bucket, key: str, action: str, reason: Reason, why: str) -> StoreError:
    whom = ""
    if reason in ("denied", "credentials"):
        with suppress(Exception):
            whom = bucket.identity()
    return StoreError(key, f"{action} was refused{f' to {whom}' if whom else ''}: {why}", reason)


def _on_the_way(error: Exception) -> bool:
    """Whether it is a connection that failed. What reads an answer's body lets errors of the layers below through."""
    return isinstance(error, (OSError, HTTPException)) or type(error).__module__.startswith("urllib3.")
