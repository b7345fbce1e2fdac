"""gtj doctor --cluster: which pools are seen, which profiles fit them, and what is said to be missing."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from gentrain_operator import nodepools
from gentrain_operator.kube.resource import NODES, Object, Resource
from gentrain_operator.surroundings import BAD
from tests.operator.pools import ROWS, profile
from trainjobs.api.profile import ProfileSpec
from trainjobs.cli import doctor as verb
from trainjobs.cli.cluster import doctor, server
from trainjobs.cli.cluster.target import Target

# Labels that a cloud puts on every node of such a pool, beside those that our profiles select by.
OWN = {
    "aws/managed": {"eks.amazonaws.com/nodegroup": "gpus", "k8s.amazonaws.com/accelerator": "h100"},
    "aws/karpenter": {"karpenter.k8s.aws/instance-family": "p5"},
    "aws/auto": {"eks.amazonaws.com/compute-type": "auto"},
    "gcp/standard": {"cloud.google.com/gke-nodepool": "gpus"},
    "gcp/nap": {"cloud.google.com/gke-nodepool": "nap", "cloud.google.com/compute-class": "gpus"},
    "azure/pool": {"kubernetes.azure.com/agentpool": "gpus"},
    "azure/nap": {"karpenter.azure.com/sku-gpu-name": "H100"},
}


def node(name: str, labels: dict[str, str], *, gpus: int = 0, taints: tuple[tuple[str, str], ...] = (), **more: str) -> Object:
    there = {"cpu": "220", "memory": "1900Gi", **({"nvidia.com/gpu": str(gpus)} if gpus else {}), **more}
    marks = [{"key": key, "value": value, "effect": "NoSchedule"} for key, value in taints]
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": marks}, "status": {"allocatable": there}}


def of_pool(provider: str, pool: str, one: ProfileSpec, **more: Any) -> Object:
    """A node as that cloud makes it."""
    return node("n1", {**OWN.get(f"{provider}/{pool}", {}), **nodepools.workers(one, 8).selector}, gpus=8, **more)


@pytest.mark.parametrize(("provider", "pool", "capacity", "fabric"), [row for row in ROWS if row[3] == "none"])
def test_each_kind_of_pool_is_known_by_its_labels_and_its_profile_fits(provider: str, pool: str, capacity: str, fabric: str) -> None:
    one = profile(provider, pool, capacity, fabric)
    there = of_pool(provider, pool, one, taints=(("nvidia.com/gpu", "present"),) if pool != "pool" else (("sku", "gpu"),))
    (found,) = doctor.pools([there], {"mine": one, "other": ProfileSpec(selector={"pool": "none"})})
    expected = {"gcp/autopilot": "generic"}.get(f"{provider}/{pool}", f"{provider}/{pool}")
    assert found.kind == expected
    assert found.spot == (capacity == "spot")
    assert (found.gpus, found.profiles) == (8, ("mine",))
    assert [one.subject for one in doctor.findings([there], {"mine": one})] == []


def test_a_taint_a_label_or_a_share_keeps_a_profile_off() -> None:
    one = profile("aws", "karpenter", "on-demand", "none")
    good = of_pool("aws", "karpenter", one)
    assert doctor.fits(one, good)
    assert not doctor.fits(one, {**good, "spec": {"taints": [{"key": "team", "value": "b", "effect": "NoSchedule"}]}})
    assert doctor.fits(one, {**good, "spec": {"taints": [{"key": "team", "value": "b", "effect": "PreferNoSchedule"}]}})
    assert not doctor.fits(one, {**good, "metadata": {"name": "n", "labels": {}}})
    small = {**good, "status": {"allocatable": {"cpu": "179", "memory": "1900Gi", "nvidia.com/gpu": "8"}}}
    assert doctor.lacking(one, small) == "it says cpu 180, and they offer 179"
    (said,) = doctor.findings([small], {"mine": one})
    assert (said.level, said.subject) == ("warn", "profile")
    assert "mine fits no node, although n1 would: it says cpu 180, and they offer 179" in said.detail


def test_what_is_missing_is_said_once_with_its_nodes() -> None:
    efa = profile("aws", "managed", "on-demand", "efa")
    labels = {name: value for name, value in of_pool("aws", "managed", efa)["metadata"]["labels"].items() if "k8s.amazonaws" not in name}
    nodes = [node(f"n{number}", labels, gpus=8) for number in range(4)]
    found = {one.subject: one for one in doctor.findings(nodes, {"mine": efa})}
    assert set(found) == {"scale from zero", "fabric"}
    assert found["fabric"].detail == "n0, n1 and 2 more: profile mine wants vpc.amazonaws.com/efa, and they offer none"
    assert "k8s.amazonaws.com/accelerator" in found["scale from zero"].mend
    ready = [node("n0", {**labels, "k8s.amazonaws.com/accelerator": "h100"}, gpus=8, **{"vpc.amazonaws.com/efa": "32"})]
    assert [*doctor.findings(ready, {"mine": efa})] == []

    bare = node("n7", {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-nodepool": "p"})
    (said,) = doctor.findings([bare], {})
    assert (said.level, said.subject) == ("fail", "device plugin")
    assert said.detail.startswith("n7: ")

    sick = {**ready[0], "status": {**ready[0]["status"], "conditions": [{"type": name, "status": BAD[name]} for name in ("XIDErrors",)]}}
    assert [one.subject for one in doctor.findings([sick], {"mine": efa})] == ["accelerator"]
    (away,) = doctor.findings([], {"mine": efa})
    assert away.detail == "mine fits no node that there is now"


def test_a_profile_that_cannot_be_read_is_said() -> None:
    found, unread = doctor.read([{"metadata": {"name": "odd"}, "spec": {"capacity": "cheap"}}, {"metadata": {"name": "good"}, "spec": {}}])
    assert list(found) == ["good"]
    assert unread[0].detail.startswith("odd is not usable: spec.capacity: ")


def test_in_eighty_columns_and_with_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    one = profile("gcp", "standard", "spot", "none")
    there = [of_pool("gcp", "standard", one), node("cpu-1", {"cloud.google.com/gke-nodepool": "cpu"})]
    profiles = {f"a-profile-with-a-long-name-{number}": one for number in range(8)}

    class Cluster:
        where = f"context {'a' * 40}, https://{'b' * 40}.example.org:6443, as somebody"

        def everything(self, resource: Resource, doing: str) -> list[Object]:
            if resource is NODES:
                return there
            return [{"metadata": {"name": name}, "spec": one.model_dump(mode="json", by_alias=True)} for name, one in profiles.items()]

    monkeypatch.setattr(server, "connect", lambda target: Cluster())
    monkeypatch.setenv("COLUMNS", "80")

    @click.command()
    def run() -> None:
        raise SystemExit(verb.of_cluster(Target(None, None, None), "table"))

    shown = CliRunner().invoke(run)
    assert shown.exit_code == 0, shown.output
    words = shown.output.splitlines()
    assert max(map(len, words)) <= 80 + len(".example.org:6443,"), "but for an address"
    assert max(len(line) for line in words if "example.org" not in line) <= 80
    assert "gcp/standard  8 x nvidia-h100-80gb, 1 node, spot" in shown.output
    assert "gcp/standard  no accelerators, 1 node\n              profiles: none fits" in shown.output
    there[:] = [replace_gpus(there[0])]
    shown = CliRunner().invoke(run)
    assert shown.exit_code == 4
    assert "fail  device plugin    n1: labelled as having GPUs" in shown.output


def replace_gpus(one: Object) -> Object:
    return {**one, "status": {"allocatable": {"cpu": "220", "memory": "1900Gi"}}}
