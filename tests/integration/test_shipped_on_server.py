"""What manifests/ has for clouds, held against the clouds' own definitions on a real API server, CEL rules included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane
from tests.cluster.karpenter import EKSCTL, install, provided

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
POOLS = ROOT / "manifests" / "nodepools"


@pytest.fixture
def karpenter(definitions: ControlPlane) -> Iterator[ControlPlane]:
    """The run's control plane with Karpenter's definitions; a pool's class cannot change, so none is left for the next test."""
    try:
        install(definitions)
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield definitions
    definitions.kubectl("delete", "nodepools", "--all")


@pytest.mark.parametrize("cloud", ["eks-karpenter", "gke-standard"])
def test_node_pools_and_profiles_are_taken_as_they_are(karpenter: ControlPlane, cloud: str) -> None:
    said = karpenter.kubectl("apply", "--server-side", "--validate=strict", "-f", str(POOLS / cloud)).stdout
    assert len(said.splitlines()) == sum(len(list(yaml.safe_load_all(path.read_text()))) for path in (POOLS / cloud).glob("*.yaml"))


def test_azures_pools_are_taken_but_for_what_only_its_own_definitions_know(karpenter: ControlPlane) -> None:
    """The definition of a NodePool at hand is AWS's, which knows AWS's labels, and of an AKSNodeClass there is none."""
    karpenter.kubectl("apply", "--server-side", "--validate=strict", "-f", str(POOLS / "aks-nap"))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("template", "spec", "expireAfter"), "never", "expireAfter"),
        (("template", "spec", "taints"), [{"key": "nvidia.com/gpu", "effect": "NoShedule"}], "effect"),
        (("template", "spec", "requirements"), [{"key": "karpenter.sh/capacity", "operator": "In", "values": ["spot"]}], "restricted"),
        (("disruption", "consolidationPolicy"), "WhenOld", "consolidationPolicy"),
    ],
)
def test_canary_a_wrong_pool_is_refused(karpenter: ControlPlane, path: tuple[str, ...], value: Any, says: str) -> None:
    pool = next(yaml.safe_load_all((POOLS / "eks-karpenter" / "nodepools.yaml").read_text()))
    inner = pool["spec"]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    said = karpenter.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=json.dumps(pool), check=False)
    assert said.returncode != 0
    assert says in said.stderr


def test_the_cluster_of_eks_is_one_that_eksctl_reads() -> None:
    try:
        schema = json.loads((provided(EKSCTL) / "schema.json").read_text())
    except Unavailable as reason:
        pytest.skip(str(reason))
    cluster = yaml.safe_load((ROOT / "manifests" / "clusters" / "eks.yaml").read_text())
    check = jsonschema.Draft7Validator(schema)
    assert [one.message for one in check.iter_errors(cluster)] == []
    cluster["managedNodeGroups"][0]["instanceTyp"] = "m7i.large"
    assert any("instanceTyp" in one.message for one in check.iter_errors(cluster))
