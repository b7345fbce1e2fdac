"""A cluster with KubeRay, an S3 server and Gentrain on it, once for all end-to-end tests, and a namespace for each."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import archive, images
from tests.cluster.binaries import Unavailable
from tests.cluster.kuberay_standin import CRDS
from tests.cluster.node import Node, missing
from tests.e2e import software
from tests.e2e.cluster import ROOT, Cluster, Images
from tests.e2e.jobs import BUCKET, CREDENTIALS, Team

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for mark in (pytest.mark.slow, pytest.mark.kuberay):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def bare(say: Callable[[str], None]) -> Cluster:
    """The cluster, with nothing of ours on it. GENTRAIN_E2E says which: `node`, or a kubeconfig; `make e2e` sets it."""
    chosen = os.environ.get("GENTRAIN_E2E", "")
    if not chosen:
        pytest.skip("end-to-end tests are run by `make e2e`")
    if chosen != "node":
        names = Images(*(os.environ.get(f"GENTRAIN_{one}_IMAGE", "") for one in ("OPERATOR", "TRAINER", "S3")))
        if not all((names.operator, names.trainer, names.s3)):
            pytest.skip("a cluster of your own needs GENTRAIN_OPERATOR_IMAGE, GENTRAIN_TRAINER_IMAGE and GENTRAIN_S3_IMAGE (versitygw)")
        return Cluster(Path(chosen).resolve(), names)
    if not os.environ.get("GENTRAIN_KUBERAY_IMAGE"):
        pytest.skip("GENTRAIN_KUBERAY_IMAGE names no image archive of the KubeRay operator")
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's definitions are not in {CRDS}; set GENTRAIN_KUBERAY_CRDS")
    if reason := missing():
        pytest.skip(reason)
    node = Node(say=say)
    given = {name: os.environ.get(f"GENTRAIN_{name.upper()}_IMAGE") for name in ("s3", "operator", "trainer")}
    try:
        node.up()
        built = images.provide(node, (name for name, image in given.items() if not image), say)
        names = Images(**built, **{name: image for name, image in given.items() if image})
    except Unavailable as reason:
        pytest.skip(str(reason))
    return Cluster(node.identities.admin, names, node.prefix, node)


@pytest.fixture(scope="session")
def kuberay(bare: Cluster) -> Cluster:
    """The same with KubeRay: the user's own, or the archive's."""
    if bare.node is None:
        found = bare.kubectl("get", "crd", "rayjobs.ray.io", "--ignore-not-found").stdout
        if not found:
            pytest.skip("KubeRay is not installed in this cluster")
        return bare
    path = Path(os.environ["GENTRAIN_KUBERAY_IMAGE"])
    bare.node.load(path)
    software.kuberay(bare, archive.name_of(path))
    return bare


@pytest.fixture(scope="session")
def toolbox(kuberay: Cluster) -> software.Toolbox:
    software.storage(kuberay)
    box = software.Toolbox(kuberay)
    box.bucket(BUCKET)
    return box


@pytest.fixture(scope="session")
def cluster(kuberay: Cluster, toolbox: software.Toolbox) -> Cluster:
    """All of it, Gentrain included."""
    software.gentrain(kuberay, chart=ROOT / "charts" / "gentrain")
    return kuberay


@pytest.fixture
def team(cluster: Cluster, toolbox: software.Toolbox, tmp_path: Path) -> Iterator[Team]:
    """A fresh namespace with the bucket's credentials in a Secret; it goes with the test."""
    name = f"team-{next(_numbers)}-{int(time.time()) % 100000}"
    cluster.apply(software.namespace(name))
    working = Team(cluster, name, toolbox, tmp_path)
    working.secret(CREDENTIALS)
    yield working
    with contextlib.suppress(AssertionError):
        cluster.kubectl("delete", "gtj", "--all", "-n", name, "--wait=true", "--timeout=60s")
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)
