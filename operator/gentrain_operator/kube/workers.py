"""The threads that reconcile: each takes a key, reconciles it, and says when to look again.

A failure is logged once per key and reason, not once per retry, and backs off. Nothing a reconcile raises ends a worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.store import Key
from gentrain_operator.kube.workqueue import WorkQueue

log = logging.getLogger(__name__)

# Seconds after which to look at the key again; None for "when something happens".
Reconcile = Callable[[Key], float | None]


NOT_ALLOWED = 1.0  # seconds until a key that was taken meanwhile is asked for again


class Workers:
    """`observe` is told of every reconcile: seconds it took, and whether it succeeded. While `allowed` says no, nothing is worked on and
    nothing is lost: a key stays in the queue until it says yes, or the process ends."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        reconcile: Reconcile,
        *,
        count: int = 8,
        allowed: Callable[[], bool] = lambda: True,
        observe: Callable[[float, bool], None] = lambda seconds, succeeded: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue, self._reconcile, self._observe, self._clock = queue, reconcile, observe, clock
        self._allowed = allowed
        self._complaints: dict[Key, str] = {}
        self._threads = [threading.Thread(target=self._run, name=f"worker-{number}", daemon=True) for number in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """Lets every worker finish its key; False when one did not within `timeout`."""
        self._queue.close()
        deadline = self._clock() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))
        return not any(thread.is_alive() for thread in self._threads)

    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def work(self, key: Key) -> None:
        """Reconciles one key that was taken from the queue, and puts it back as its outcome asks."""
        if not self._allowed():
            # Nothing else would bring it back: the event that put it here does not come twice.
            self._queue.add_after(key, NOT_ALLOWED)
            return self._queue.done(key)
        began, succeeded = self._clock(), False
        try:
            again = self._reconcile(key)
            succeeded = True
            self._complaints.pop(key, None)
            self._queue.forget(key)
            if again is not None:
                self._queue.add_after(key, again)
        except ApiError as error:
            # A conflict or a name just taken means that our store trails behind: the usual case, and no news.
            if not error.conflict:
                self._complain(key, str(error))
            self._queue.add_failed(key, error.retry_after or 0.0)
        except Exception as error:
            self._complain(key, repr(error), trace=True)
            self._queue.add_failed(key)
        finally:
            self._queue.done(key)
            self._observe(self._clock() - began, succeeded)

    def _complain(self, key: Key, why: str, trace: bool = False) -> None:
        if self._complaints.get(key) != why:
            self._complaints[key] = why
            log.error("cannot reconcile %s/%s, trying again: %s", *key, why, exc_info=trace)

    def _run(self) -> None:
        while (key := self._queue.get()) is not None:
            self.work(key)
