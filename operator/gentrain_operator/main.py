"""`python -m gentrain_operator.main`: puts the operator together and runs it until it is told to stop or loses its lease.

The order of starting and stopping is what matters. Stores are filled before the lease is asked for, so that a standby takes over at once;
nothing is reconciled before both. When stopping, workers finish first and the lease is released last: whoever takes it may trust that
nobody else works.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from gentrain_operator.controller import Controller, Stores, job_of, light_rayjob
from gentrain_operator.identity import DEFAULT, RunAs, run_as
from gentrain_operator.kube.client import Client, Configuration, from_kubeconfig, in_cluster
from gentrain_operator.kube.events import Recorder
from gentrain_operator.kube.lease import LEASE_TIMEOUT, Lease
from gentrain_operator.kube.metrics import Metrics
from gentrain_operator.kube.probes import Probes, not_synced, silent_reflector, stuck_worker
from gentrain_operator.kube.reflector import Reflector
from gentrain_operator.kube.resource import JOBS, PROFILES, RAYJOBS, Object, Resource
from gentrain_operator.kube.store import Key, Store, key_of
from gentrain_operator.kube.workers import Workers
from gentrain_operator.kube.workqueue import WorkQueue
from gentrain_operator.names import SELECTOR
from gentrain_operator.polls import Polls, of_a_pod
from gentrain_operator.served import Served
from gentrain_operator.watched import Place, Watched, names
from gentrain_operator.webhook import SECRET, VARIABLE, Webhook, usable

log = logging.getLogger(__name__)

LEASE_NAME = "gentrain-operator"
# What the server sends are trees, a hundred thousand dicts a page, without a cycle in them: to look for some while a page is read takes
# Python's collector, as it comes, twice as long as to read it.
COLLECT = (100_000, 20, 20)


@dataclass(frozen=True)
class Settings:
    """`namespace`: which to watch, as watched.names reads it, None for all. `home`: where the lease is. `port` 0: any free one. `webhook`:
    its address, "" for none."""

    image: str
    home: str
    namespace: str | None = None
    port: int = 8080
    workers: int = 8
    run_as: RunAs | None = DEFAULT
    preflight: bool = False
    webhook: str = field(default="", repr=False)


class Operator:
    """All parts, not yet started."""

    def __init__(self, configuration: Configuration, settings: Settings) -> None:
        self.metrics = Metrics()
        self.client = Client(configuration, self.metrics.request)
        identity = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        lease_client = Client(configuration, self.metrics.request, timeout=LEASE_TIMEOUT)
        self.lease = Lease(lease_client, settings.home, LEASE_NAME, identity)
        self.queue: WorkQueue[Key] = WorkQueue()
        self.stores = Stores(Store(), Store(), Store(light_rayjob))
        self.recorder = Recorder(self.client, identity)
        self.polls = Polls(self.queue.add, vouch=partial(of_a_pod, self.client))
        self.served = Served(lambda: self.client.schema(JOBS))
        self.webhook = Webhook(settings.webhook, self.queue.add) if settings.webhook else None
        self.controller = Controller(
            *(self.client, self.stores, self.polls, self.recorder),
            image=settings.image,
            served=self.served,
            run_as=settings.run_as,
            preflight=settings.preflight,
            webhook=self.webhook,
        )
        self.workers = Workers(
            self.queue, self._reconcile, count=settings.workers, allowed=self.lease.held, observe=self.metrics.reconciled
        )
        self.watched = Watched([self._place(name) for name in names(settings.namespace) or (None,)], self._take_up)
        self._profiles = Reflector(self.client, PROFILES, self.stores.profiles, self._profile_changed)
        self.reflectors = [self._profiles, *(one for place in self.watched.places for one in place.reflectors)]
        self._leading = threading.Event()
        live = [silent_reflector(self.reflectors), stuck_worker(self.queue.longest_work, self._workers_alive)]
        ready = [not_synced([self._profiles]), self.watched.waiting]
        self.probes = Probes(
            settings.port, live=live, ready=ready, notes=[self.watched.left_out, self.served.note], metrics=self.metrics.text
        )
        self.metrics.jobs(self.stores.jobs.all)
        self.metrics.gauge("gentrain_queue_depth", "Jobs that wait to be reconciled.", lambda: float(len(self.queue)))
        self.metrics.gauge("gentrain_queue_age_seconds", "How long the first of them has waited.", self.queue.age)
        self.metrics.gauge("gentrain_watch_restarts", "Watches begun.", lambda: float(sum(one.restarts for one in self.reflectors)))
        self.metrics.gauge(
            "gentrain_watch_silence_seconds", "Longest silence of a watch.", lambda: max(one.silence() for one in self.reflectors)
        )
        self.metrics.gauges(
            "gentrain_namespace_watched",
            "1 when jobs of the namespace are watched, 0 while the server refuses it; namespace empty: all of them.",
            "namespace",
            {place.name or "": lambda place=place: float(place.workable()) for place in self.watched.places},  # type: ignore[misc]
        )
        if self.webhook is not None:
            self.metrics.gauge("gentrain_webhook_waiting", "Notices that the webhook has not taken yet.", self.webhook.waiting)
        self.metrics.gauge("gentrain_leading", "1 when this replica works.", lambda: float(self.lease.held()))

    def run(self, stopped: threading.Event) -> int:
        """Until `stopped`: 0. When the lease is lost: 1, and the process should end."""
        self.probes.start()
        self.recorder.start()
        for reflector in self.reflectors:
            reflector.start()
        try:
            self.served.look()
            if not self._synced(stopped) or not self.lease.acquire(stopped):
                return 0
            self._leading.set()
            self.polls.start()
            if self.webhook is not None:
                self.webhook.start()
            self.workers.start()
            self.lease.keep(stopped)
            return 0 if stopped.is_set() else 1
        finally:
            self._stop()

    def _stop(self) -> None:
        finished = True
        if self._leading.is_set():
            finished = self.workers.stop()
            self.polls.stop()
        if self.webhook is not None:
            self.webhook.stop()
        self.recorder.stop()
        if finished:
            self.lease.release()
        for reflector in self.reflectors:
            reflector.stop()
        self.probes.stop()
        self.client.close()

    def _synced(self, stopped: threading.Event) -> bool:
        while not stopped.is_set():
            if self._profiles.synced.is_set() and not self.watched.waiting():
                return True
            stopped.wait(0.05)
        return False

    def _place(self, name: str | None) -> Place[Reflector]:
        def reflector(resource: Resource, store: Store, changed: Callable[[Object], None], labels: str = "") -> Reflector:
            return Reflector(
                self.client, resource, store, changed, namespace=name, labels=labels, on_standing=lambda: self.watched.turned()
            )

        jobs = reflector(JOBS, self.stores.jobs, self._job_changed)
        return Place(name, [jobs, reflector(RAYJOBS, self.stores.rayjobs, self._rayjob_changed, SELECTOR)])

    def _take_up(self, namespace: str | None) -> None:
        for key in self.stores.jobs.all_keys():
            if namespace in (None, key.namespace):
                self.queue.add(key)

    def _reconcile(self, key: Key) -> float | None:
        # Nothing is lost: all jobs of a namespace are looked at when it is taken up again.
        return self.controller.reconcile(key) if self.watched.workable(key.namespace) else None

    def _workers_alive(self) -> bool:
        return not self._leading.is_set() or self.workers.alive()

    def _job_changed(self, job: Object) -> None:
        self.queue.add(key_of(job))

    def _rayjob_changed(self, rayjob: Object) -> None:
        key = job_of(rayjob)
        if key is not None:
            self.queue.add(key)

    def _profile_changed(self, profile: Object) -> None:
        name = profile["metadata"]["name"]
        for job in self.stores.jobs.all():
            if name in (job.get("spec", {}).get("compute") or {}).get("profiles", ()):
                self.queue.add(key_of(job))


def _namespaces(text: str) -> str:
    try:
        return ",".join(names(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def webhook_of(environment: Mapping[str, str]) -> str:
    """The webhook's address, from the Secret that the chart names. One that is none keeps no job waiting: it is said once."""
    url, secret = environment.get(VARIABLE, "").strip(), environment.get(SECRET, "")
    why = usable(url) if url else f"there is no Secret {secret} with such a key" if secret else ""
    if why:
        log.error("nobody is told by webhook: %s. Mend the Secret that webhook.secretName names, and restart the operator", why)
        return ""
    return url


def main() -> int:
    parser = argparse.ArgumentParser(prog="gentrain-operator", description=__doc__)
    parser.add_argument("--trainer-image", required=True, help="image of jobs and profiles that name none")
    parser.add_argument("--namespace", type=_namespaces, help="watch this namespace only, or these: a,b; default: all")
    parser.add_argument("--home", default=os.environ.get("POD_NAMESPACE", "default"), help="namespace of the lease")
    parser.add_argument("--port", type=int, default=8080, help="of /livez, /readyz and /metrics")
    parser.add_argument("--run-as", type=run_as, default=DEFAULT, metavar="UID:GID", help="of jobs' pods; empty: whom the cluster chooses")
    parser.add_argument("--preflight", action="store_true", help="before a job's first attempt, a small pod looks whether it can run")
    parser.add_argument("--kubeconfig", help="default: the pod's service account, or KUBECONFIG outside a cluster")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    inside = "KUBERNETES_SERVICE_HOST" in os.environ and not arguments.kubeconfig
    configuration = in_cluster() if inside else from_kubeconfig(arguments.kubeconfig)
    settings = Settings(
        *(arguments.trainer_image, arguments.home, arguments.namespace, arguments.port),
        run_as=arguments.run_as,
        preflight=arguments.preflight,
        webhook=webhook_of(os.environ),
    )
    gc.set_threshold(*COLLECT)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    return Operator(configuration, settings).run(stopped)


if __name__ == "__main__":
    sys.exit(main())
