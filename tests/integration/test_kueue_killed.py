"""Kueue is killed at every write of the operator, right before or right after it, and started again, while two jobs want the quota of one.

Both end well, and at no moment do a watch's events show more RayJobs let go than there is quota for, or two of one job.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from gentrain_operator import refusals
from gentrain_operator.decide import TERMINAL
from gentrain_operator.kube.resource import JOBS, RAYJOBS, Object
from tests.cluster.at_work import Bench, Driver
from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane
from tests.cluster.faulty import Fault, First, Request, Then, faulty
from tests.cluster.kueue import Kueue, admitting, queueing

pytestmark = pytest.mark.slow
WHEN: dict[str, Callable[[Callable[[], None]], Fault]] = {"before": First, "after": Then}

# Right after a write and right before the next leave much the same behind. Both at every write are for GENTRAIN_SWEEP=all.
ALL = os.environ.get("GENTRAIN_SWEEP") == "all"
MOMENTS = [(number, when) for number in range(1, 40) for when in (WHEN if ALL else (("after", "before")[number % 2],))]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None], kuberay_crds: str) -> Iterator[tuple[ControlPlane, Kueue]]:
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(queueing(tmp_path_factory.mktemp("killed"), kuberay_crds, say))
        except Unavailable as reason:
            pytest.skip(str(reason))


@pytest.fixture(scope="module")
def cluster(parts: tuple[ControlPlane, Kueue]) -> ControlPlane:
    return parts[0]


class Killer:
    """Kills Kueue at the n-th write of the operator, leases and events aside; `down` says that it did."""

    def __init__(self, kueue: Kueue) -> None:
        self._kueue, self._lock, self.down = kueue, threading.Lock(), threading.Event()
        self.arm(0, "before")

    def arm(self, number: int, when: str) -> None:
        with self._lock:
            self._number, self._when, self._writes = number, when, 0

    def __call__(self, request: Request) -> Fault | None:
        if request.method == "GET" or "/leases/" in request.path or "/events" in request.path:
            return None
        with self._lock:
            self._writes += 1
            return WHEN[self._when](self._kill) if self._writes == self._number else None

    def _kill(self) -> None:
        self._kueue.kill()
        self.down.set()


class Watched:
    """What a watch of a namespace's RayJobs shows: `broken` has each moment at which two were let go and not over."""

    def __init__(self, bench: Bench) -> None:
        self.seen = 0
        self.broken: list[dict[str, str]] = []
        self._let_go: dict[str, str] = {}
        version = bench.client.list(RAYJOBS, bench.namespace)["metadata"]["resourceVersion"]
        self._watch = bench.client.watch(RAYJOBS, bench.namespace, version=version, seconds=600)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def at_work(self) -> bool:
        return self._thread.is_alive()

    def _follow(self) -> None:
        with contextlib.suppress(Exception):  # it ends with the test; whether it ended before, `at_work` says
            self._look()

    def _look(self) -> None:
        for event in self._watch:
            made: Object = event["object"]
            if event["type"] == "BOOKMARK":
                continue
            self.seen += 1
            name = made["metadata"]["name"]
            over = (made.get("status") or {}).get("jobDeploymentStatus") in TERMINAL or made["metadata"].get("deletionTimestamp")
            if event["type"] == "DELETED" or over or made["spec"].get("suspend"):
                self._let_go.pop(name, None)
            else:
                self._let_go[name] = made["metadata"]["resourceVersion"]
            if len(self._let_go) > 1:
                self.broken.append(dict(self._let_go))


def test_killed_at_every_write_of_the_operator_it_goes_on_and_never_beyond_its_quota(
    parts: tuple[ControlPlane, Kueue], namespace: str, driver: Driver, monkeypatch: pytest.MonkeyPatch, say: Callable[[str], None]
) -> None:
    cluster, kueue = parts
    monkeypatch.setattr(refusals, "AGAIN", (0.1, 0.5))
    admitting(cluster, namespace, cpu="10")  # a head and two workers take nine
    killer = Killer(kueue)
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(faulty(cluster))
        proxy.script = killer
        bench = Bench(cluster, namespace, driver, proxy.kubeconfig("operator"))
        stack.callback(bench.stop)
        watched = Watched(bench)
        killed = []
        for number, when in MOMENTS:
            if life(bench, kueue, killer, number, when):
                killed.append((number, when))
                say(f"Kueue killed {when} write {number}; {watched.seen} events of RayJobs so far")
            elif killed and number > killed[-1][0] + 1:
                break
            assert not watched.broken
            assert watched.at_work
        assert {when for _, when in killed} == set(WHEN)
        assert len(killed) >= 8
        assert watched.seen >= 4 * len(killed)


def life(bench: Bench, kueue: Kueue, killer: Killer, number: int, when: str) -> bool:
    """Two jobs from beginning to end; whether there was a write of that number, and Kueue was killed at it."""
    names = [f"{one}{number}{when[0]}" for one in ("first", "second")]
    killer.down.clear()
    killer.arm(number, when)
    hit = False
    left = {*names}

    def settled() -> bool:
        nonlocal hit
        if killer.down.is_set():
            killer.down.clear()
            hit = True
            kueue.run()
        for name, made in bench.kuberay.rayjobs().items():
            if not made["spec"].get("suspend") and (made.get("status") or {}).get("jobDeploymentStatus") not in TERMINAL:
                bench.kuberay.initialize(name)
                bench.kuberay.run(name)
                bench.kuberay.succeed(name)
        left.difference_update([name for name in left if bench.status(name).get("phase") == "Succeeded"])
        return not left

    for name in names:
        bench.apply(name, compute={"gpusPerWorker": 0, "workers": 2, "queue": "team"})
    bench.until(settled)
    for name in names:
        assert bench.status(name)["attempts"] == 1
        bench.client.delete(JOBS, bench.namespace, name, uid=bench.job(name)["metadata"]["uid"])
    bench.until(lambda: not bench.kuberay.rayjobs())
    if killer.down.is_set():  # at the last write of all
        hit = True
        kueue.run()
    return hit
