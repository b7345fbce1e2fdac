"""Fixtures of the tests that talk to a real API server. One server per test run; every test gets a namespace of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gentrain_operator import controller, decide, polls
from tests.cluster.at_work import Bench, Driver
from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.kuberay_standin import CRDS
from trainjobs.api import crd

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]) -> Iterator[ControlPlane]:
    """The run's control plane."""
    try:
        with control_plane(tmp_path_factory.mktemp("cluster"), say) as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def definitions(cluster: ControlPlane) -> ControlPlane:
    """The run's control plane, with our custom resource definitions."""
    for definition in crd.definitions().values():
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
    cluster.wait_for_kinds("gentrain.dev", 2)
    return cluster


@pytest.fixture(scope="session")
def kuberay_crds() -> str:
    """The folder of KubeRay's definitions."""
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's definitions are not in {CRDS}; set GENTRAIN_KUBERAY_CRDS")
    return str(CRDS)


@pytest.fixture(scope="session")
def installed(definitions: ControlPlane, kuberay_crds: str) -> ControlPlane:
    """The same with KubeRay's definitions as well."""
    definitions.kubectl("apply", "--server-side", "-f", kuberay_crds)
    definitions.wait_for_kinds("ray.io", 2)
    return definitions


@pytest.fixture
def own_cluster(tmp_path: Path, say: Callable[[str], None]) -> Iterator[ControlPlane]:
    """A control plane that one test may break."""
    try:
        with control_plane(tmp_path, say) as running:
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def namespace(cluster: ControlPlane) -> str:
    name = f"test-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """The trainer's end of /progress, asked ten times a second; failures are retried at once."""
    serving = Driver()
    monkeypatch.setattr(controller, "PORT", serving.port)
    monkeypatch.setattr(polls, "EVERY", 0.1)
    monkeypatch.setattr(polls, "BACKOFF", (0.1, 0.2))
    monkeypatch.setattr(decide, "RETRY", (0.01, 0.1))
    yield serving
    serving.close()


@pytest.fixture
def bench(installed: ControlPlane, namespace: str, driver: Driver) -> Iterator[Bench]:
    # What KubeRay makes has to pass the strictest of the standards.
    installed.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    running = Bench(installed, namespace, driver)
    yield running
    running.stop()
