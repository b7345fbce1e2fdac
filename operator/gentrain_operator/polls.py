"""Asks the head pods of running jobs how far they are, from a few threads of its own.

A hung or lying endpoint costs one of these threads two seconds and then waits longer each time; it never costs a worker of the reconcile
queue anything. A report that differs from the last one puts its job into that queue.

An attempt that is ended, by suspension for one, saves a checkpoint while its pods are already going: its head is asked every second then,
until it answers no more, so that the status names that checkpoint.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gentrain_operator.kube.client import Client
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.store import Key
from gentrain_operator.kube.workqueue import WorkQueue
from gentrain_operator.pods import of_job
from gentrain_operator.report import Unreadable, fetch

log = logging.getLogger(__name__)

EVERY = 10.0
EARLY = 3.0  # before the first step
BACKOFF = (EVERY, 120.0)
LAST = 1.0  # while the attempt ends
NAMES = 64  # of metrics that a job may use in its life: each is a time series for whoever collects them


@dataclass(frozen=True)
class Endpoint:
    """Where an attempt's driver reports; another attempt, or another job of the name, is another endpoint, even at the same address."""

    address: str
    port: int
    attempt: int
    uid: str = ""


def of_a_pod(client: Client, key: Key, endpoint: Endpoint) -> bool:
    """Whether a pod of that job has the endpoint's address: whoever may write a RayJob's status could have the operator ask anybody."""
    return any(pod.get("status", {}).get("podIP") == endpoint.address for pod in of_job(client, key))


class Polls:
    """`on_report` is told of a job whose report changed. `read` is report.fetch, or a test's. `vouch` says, once for each endpoint, whether
    it may be asked at all; it is called here and not where jobs are looked at, because it asks the API server."""

    def __init__(
        self,
        on_report: Callable[[Key], None],
        *,
        read: Callable[[str, int], Object] = fetch,
        vouch: Callable[[Key, Endpoint], bool] = lambda key, endpoint: True,
        threads: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_report, self._read, self._vouch = on_report, read, vouch
        self._vouched: dict[Key, Endpoint] = {}  # that are known to be of the jobs' own pods
        self._queue: WorkQueue[Key] = WorkQueue(clock=clock, base=BACKOFF[0], limit=BACKOFF[1])
        self._lock = threading.Lock()
        self._endpoints: dict[Key, Endpoint] = {}
        self._reports: dict[Key, Object] = {}
        self._names: dict[Key, set[str]] = {}  # of metrics, over the job's life
        self._ending: set[Key] = set()
        self._threads = [threading.Thread(target=self._run, name=f"poll-{number}", daemon=True) for number in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._queue.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def follow(self, key: Key, endpoint: Endpoint | None) -> None:
        """From now on ask there; None hears the last words and then stops asking. Repeating it changes nothing."""
        with self._lock:
            before, ending = self._endpoints.get(key), key in self._ending
            if (endpoint is None and (before is None or ending)) or (endpoint == before and not ending):
                return
            if endpoint is None:
                self._ending.add(key)
            else:
                self._ending.discard(key)
                self._endpoints[key] = endpoint
                if before is None or (before.attempt, before.uid) != (endpoint.attempt, endpoint.uid):
                    if before is not None and before.uid != endpoint.uid:
                        self._names.pop(key, None)
                    self._reports.pop(key, None)
        self._queue.forget(key)
        self._queue.add(key)

    def forget(self, key: Key) -> None:
        """The job is gone."""
        with self._lock:
            self._leave(key)
            self._reports.pop(key, None)
            self._names.pop(key, None)
        self._vouched.pop(key, None)

    def _may_ask(self, key: Key, endpoint: Endpoint) -> None:
        """Unreadable for an address that nobody vouches for, or for which nobody can just now."""
        if self._vouched.get(key) == endpoint:
            return
        try:
            good = self._vouch(key, endpoint)
        except ApiError as error:
            raise Unreadable(f"whose address {endpoint.address} is cannot be told: {error}") from error
        if not good:
            log.warning("%s/%s: %s is the address of none of its pods, and is not asked", *key, endpoint.address)
            raise Unreadable(f"{endpoint.address} is the address of none of its pods")
        self._vouched[key] = endpoint

    def report(self, key: Key) -> Object | None:
        """The last report of the attempt that is followed, or was last."""
        with self._lock:
            return self._reports.get(key)

    def poll(self, key: Key) -> None:
        """Asks once, now."""
        with self._lock:
            endpoint, ending = self._endpoints.get(key), key in self._ending
        if endpoint is None:
            self._queue.forget(key)
            return
        try:
            self._may_ask(key, endpoint)
            report = self._read(endpoint.address, endpoint.port)
        except Unreadable as error:
            if ending:
                self._ended(key)
                return
            if error.refused:  # the driver is on its way, and to ask costs nothing
                self._queue.forget(key)
                self._queue.add_after(key, EVERY)
                return
            delay = self._queue.add_failed(key)
            log.debug("no report of %s/%s, again in %.0f s: %s", *key, delay, error)
            return
        with self._lock:
            before = self._reports.get(key)
        if not belongs(report, endpoint, before):
            if ending:
                return self._ended(key)
            delay = self._queue.add_failed(key)
            log.warning(
                "%s serves the report of another job or attempt than %s/%s: dropped, again in %.0f s", endpoint.address, *key, delay
            )
            return
        if ending and before is not None and before.get("startedAt") != report.get("startedAt"):
            self._ended(key)  # the address belongs to another driver by now
            return
        report = self._bounded(key, report)
        self._queue.forget(key)
        self._queue.add_after(key, LAST if ending else after(report))
        with self._lock:
            if self._endpoints.get(key) != endpoint or before == report:
                return
            self._reports[key] = report
        self._on_report(key)

    def _bounded(self, key: Key, report: Object) -> Object:
        """The report with the first NAMES names of metrics that the job has ever used."""
        given = report.get("metrics")
        if not isinstance(given, dict):
            return report
        with self._lock:
            known = self._names.setdefault(key, set())
            for name in given:
                if len(known) < NAMES:
                    known.add(name)
            return {**report, "metrics": {name: value for name, value in given.items() if name in known}}

    def _ended(self, key: Key) -> None:
        self._queue.forget(key)
        with self._lock:
            if key in self._ending:  # nothing new has begun meanwhile
                self._leave(key)

    def _leave(self, key: Key) -> None:
        self._endpoints.pop(key, None)
        self._ending.discard(key)

    def _run(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                self.poll(key)
            except Exception:
                log.exception("poll of %s/%s failed", *key)
                self._queue.add_failed(key)
            finally:
                self._queue.done(key)


def belongs(report: Object, endpoint: Endpoint, before: Object | None) -> bool:
    """Whether the driver that answered runs this attempt of this job: addresses are given to other pods, and names to other jobs.

    A trainer of before, which does not say whom it reports of, is believed as it was then; once an attempt has said it, it has to.
    """
    of = report.get("job")
    if of is None:
        return before is None or before.get("job") is None
    return isinstance(of, dict) and (of.get("uid"), of.get("attempt")) == (endpoint.uid, endpoint.attempt)


def after(report: Object) -> float:
    """Seconds until the next poll: sooner when the end is near, whose last words are served for a moment only; a short job has nothing but
    a beginning and an end."""
    if report.get("phase") == "Stopping":
        return LAST
    if not report.get("step"):
        return min(EVERY, EARLY)
    left = report.get("etaSeconds")
    return max(1.0, left) if isinstance(left, int | float) and 0 <= left < EVERY else EVERY
