"""Leader election: at most one operator works, by a Lease that the working one renews.

What must hold: two operators never work at once, whatever fails. Hence

- an operator stops by its own monotonic clock `renew_deadline` after the *start* of its last successful renewal, which is earlier than
  `duration`, after which others may take over. Clocks of different machines are never compared: a lease counts as abandoned when the
  record has not changed for `duration` while *we* watched it;
- the workers ask `held` before each piece of work, because a renewal may itself be stuck in a request when the deadline passes;
- anything but a success is a failed renewal: a refused connection, a timeout, an exception nobody thought of;
- the lease is released only after the workers have stopped.

The official client's election catches only API errors, so that an unreachable server leaves the old leader working for ever.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import LEASES, Object, Resource

# For the client that renews: a request must not outlast the deadline.
LEASE_TIMEOUT = (2.0, 4.0)

log = logging.getLogger(__name__)


class Server(Protocol):
    """What a lease needs of kube.client.Client."""

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object: ...
    def create(self, resource: Resource, namespace: str | None, body: Object) -> Object: ...
    def replace(self, resource: Resource, namespace: str | None, body: Object) -> Object: ...


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Lease:
    """One candidate. `identity` differs between candidates, also between restarts of one."""

    def __init__(
        self,
        client: Server,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: float = 15,
        renew_deadline: float = 10,
        retry: float = 2,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime.datetime] = _now,
    ) -> None:
        assert duration > renew_deadline > retry
        self._client, self._namespace, self._name, self._identity = client, namespace, name, identity
        self._duration, self._renew_deadline, self._retry = duration, renew_deadline, retry
        self._clock, self._wall = clock, wall
        self._seen: Object | None = None  # the record as last read, and since when it has been like that
        self._seen_at = 0.0
        self._renewed_at: float | None = None

    def held(self) -> bool:
        """Whether we may work right now."""
        return self._renewed_at is not None and self._clock() - self._renewed_at < self._renew_deadline

    def acquire(self, stopped: threading.Event) -> bool:
        """Waits until the lease is ours; False when stopped before."""
        while not stopped.is_set():
            if self.attempt():
                log.info("leading as %s", self._identity)
                return True
            stopped.wait(self._retry)
        return False

    def keep(self, stopped: threading.Event) -> None:
        """Renews until stopped, or until the lease is lost; afterwards `held` tells which. The caller stops its workers then."""
        while not stopped.wait(self._retry):
            if not self.held() or (not self.attempt() and not self.held()):
                log.error("lost the lease as %s", self._identity)
                return

    def attempt(self) -> bool:
        """Takes or renews the lease, if it may be had. Raises nothing."""
        began = self._clock()
        try:
            renewed = self._attempt()
        except ApiError as error:
            log.warning("cannot renew the lease: %s", error)
            renewed = False
        except Exception:
            log.exception("cannot renew the lease")
            renewed = False
        if renewed:
            self._renewed_at = began
        return renewed

    def release(self) -> None:
        """Gives the lease to whoever comes first, so that a rolling update does not wait for it to run out. Call with workers stopped."""
        record = self._seen
        self._renewed_at = None
        if record is None or record["spec"].get("holderIdentity") != self._identity:
            return
        spec = {**record["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro(self._wall())}
        try:
            self._client.replace(LEASES, self._namespace, {**record, "spec": spec})
        except Exception as error:
            log.warning("cannot release the lease: %s", error)

    def _attempt(self) -> bool:
        record = self._seen
        if record is not None and self.held() and record["spec"].get("holderIdentity") == self._identity:
            try:  # one request instead of two; a conflict says that somebody wrote in between
                self._note(self._client.replace(LEASES, self._namespace, {**record, "spec": self._spec(record["spec"])}))
                return True
            except ApiError as error:
                if not (error.conflict or error.not_found):
                    raise
        try:
            record = self._client.get(LEASES, self._namespace, self._name)
        except ApiError as error:
            if not error.not_found:
                raise
            metadata = {"name": self._name, "namespace": self._namespace}
            new = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": self._spec({})}
            self._note(self._client.create(LEASES, self._namespace, new))
            return True
        self._note(record)
        spec = record.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder and holder != self._identity:
            self._renewed_at = None  # whatever our clock says, it is somebody else's now
            if self._clock() - self._seen_at < self._duration:
                return False
        # Written at the version that was read: of two candidates who both find it abandoned, one gets a conflict.
        self._note(self._client.replace(LEASES, self._namespace, {**record, "spec": self._spec(spec)}))
        return True

    def _note(self, record: Object) -> None:
        if self._seen is None or self._seen["metadata"].get("resourceVersion") != record["metadata"].get("resourceVersion"):
            self._seen, self._seen_at = record, self._clock()

    def _spec(self, before: Object) -> Object:
        now, ours = _micro(self._wall()), before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._duration),
            "acquireTime": before.get("acquireTime") if ours and before.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if ours or not before else 1),
        }


def _micro(time: datetime.datetime) -> str:
    """A MicroTime, as the API server writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
