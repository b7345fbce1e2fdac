"""Tells a webhook what is noted in the status of jobs (notices.py): one bounded POST each, by a thread of its own.

Whoever reconciles offers and goes on at once: a receiver that hangs, refuses or is gone delays no job. There is one receiver, so after
a POST that failed nothing is sent for a while, twice as long each time, and the notice goes behind the others. What is not told when this
process ends, or did not fit, stands in the jobs' status, and is offered again when they are looked at.
"""

from __future__ import annotations

import datetime
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from gentrain_operator import notices
from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.store import Key, key_of
from gentrain_operator.observed import Decision
from gentrain_operator.times import parsed_time

log = logging.getLogger(__name__)

VARIABLE, SECRET = "GENTRAIN_WEBHOOK_URL", "GENTRAIN_WEBHOOK_SECRET"  # the address, and in which Secret it should be
TIMEOUT = 10.0  # seconds until the receiver answers
ANSWER = 1024  # bytes of an answer that are read
WAITING = 1000  # notices
RETRY = (1.0, 300.0)  # seconds after a POST that failed: doubled from the first to the second
AGAIN = 60.0  # seconds until a job is looked at whose notice is not told yet
HELD = datetime.timedelta(hours=1)  # that a job whose time is over may stay for its last notice


class Untold(Exception):
    """The receiver did not take it; the message says why, and nothing of the address."""


def usable(url: str) -> str:
    """Why an address is none, without a word of it; "" for one that is."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    return "" if fine and url.isprintable() and " " not in url else "what it has is no http:// or https:// address"


class _Straight(urllib.request.HTTPRedirectHandler):
    """A receiver that sends elsewhere has not taken anything: where a notice goes is what the Secret says."""

    def redirect_request(self, *arguments: object) -> None:
        return None


def post(url: str, body: Object, timeout: float = TIMEOUT) -> None:
    """One POST. Untold for every answer but 2xx, and for none."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", "User-Agent": "gentrain"})
    try:
        with urllib.request.build_opener(_Straight).open(request, timeout=timeout) as answer:
            answer.read(ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        raise Untold(f"it answered {error.code}") from None
    except Exception as error:  # addresses, certificates, sockets, half an answer: whatever it is, nobody has taken it
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Untold(f"{type(why).__name__}") from None


class Webhook:
    """`told` is called with the key of a job whenever one of its notices has been told. Safe to use from many threads."""

    def __init__(
        self,
        url: str,
        told: Callable[[Key], None],
        *,
        send: Callable[[str, Object], None] = post,
        clock: Callable[[], float] = time.monotonic,
        limit: int = WAITING,
    ) -> None:
        self._url, self._on_told, self._send, self._clock, self._limit = url, told, send, clock, limit
        self._lock, self._wake, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._waiting: OrderedDict[str, tuple[Key, Object]] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()
        self._due, self._delay, self._complained = 0.0, 0.0, ""
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for nobody: what is not told stands in the status of its job."""
        self._ended.set()
        self._wake.set()

    def waiting(self) -> float:
        with self._lock:
            return float(len(self._waiting))

    def noticed(self, job: Object, decision: Decision, now: datetime.datetime) -> Decision:
        """The decision, with what there is to tell noted in its status. Offers what stands in the job's status already."""
        before, after = job.get("status") or {}, decision.status
        there = list(before.get("notices") or ())
        found = notices.noted(before, after, now) if after is not None else there
        found = notices.marked(found, self._of(job, found), job, now)
        if found and (after is not None or found != there):
            decision = replace(decision, status={**(before if after is None else after), "notices": found})
        left = [one for one in found if "toldAt" not in one]
        for one in left:
            if one in there:  # what is not written yet is offered by the look that its being written brings
                self._offer(job, one)
        if left:
            ended = parsed_time(before.get("finishedAt"))
            ttl = float((job.get("spec") or {}).get("ttlSecondsAfterFinished") or 0)
            stays = decision.delete_job and ended is not None and now - ended < datetime.timedelta(seconds=ttl) + HELD
            again = min(AGAIN, decision.again) if decision.again is not None else AGAIN
            decision = replace(decision, delete_job=decision.delete_job and not stays, again=again)
        return decision

    def step(self) -> float:
        """Tell one notice, if one is due; seconds until there may be something to do."""
        now = self._clock()
        with self._lock:
            if now < self._due:
                return self._due - now
            if not self._waiting:
                return AGAIN
            name, (key, body) = self._waiting.popitem(last=False)
        try:
            self._send(self._url, body)
        except Untold as error:
            with self._lock:
                self._waiting[name] = key, body
                self._delay = min(RETRY[1], max(RETRY[0], 2 * self._delay))
                self._due = self._clock() + self._delay
            if str(error) != self._complained:
                self._complained = str(error)
                log.warning("the webhook does not take a notice of %s/%s, trying again: %s", *key, error)
            return self._delay
        with self._lock:
            self._delay, self._complained = 0.0, ""
            self._told[name] = None
            while len(self._told) > 4 * self._limit:
                self._told.popitem(last=False)
        self._on_told(key)
        return 0.0

    def _offer(self, job: Object, notice: Object) -> None:
        name = notices.name(job, notice)
        with self._lock:
            if name in self._told or name in self._waiting or len(self._waiting) >= self._limit:
                return
            self._waiting[name] = key_of(job), notices.body(job, notice)
        self._wake.set()

    def _of(self, job: Object, found: Sequence[Object]) -> frozenset[str]:
        """Those of the notices, by name, that have been told."""
        with self._lock:
            return frozenset(name for name in (notices.name(job, one) for one in found) if name in self._told)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                wait = self.step()
            except Exception:
                log.exception("a notice is not told")
                wait = RETRY[1]
            if wait:
                self._wake.wait(wait)
                self._wake.clear()
