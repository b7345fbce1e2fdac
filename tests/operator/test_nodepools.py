"""The pods of every kind of node pool, as they were read once: golden/, a file for each.

`python -m tests.operator.test_nodepools` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gentrain_operator import nodepools
from gentrain_operator.profiles import misfit
from gentrain_operator.rayjob import rayjob
from tests.operator import pools
from tests.operator.test_rayjob import JOB, spec
from trainjobs.api.parse import parse_profile
from trainjobs.api.profile import ProfileSpec
from trainjobs.plan.catalogue import efa_of, nodes

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["-".join(row) for row in pools.ROWS]


def written(row: tuple[str, str, str, str]) -> dict[str, Any]:
    made = pools.templates(pools.cluster(*row))
    return {"podSecurity": nodepools.level(pools.profile(*row)), **{name: pools.told(template) for name, template in made.items()}}


@pytest.mark.parametrize("row", pools.ROWS, ids=NAMES)
def test_pods_are_as_they_were_read(row: tuple[str, str, str, str]) -> None:
    assert written(row) == yaml.safe_load((GOLDEN / f"{'-'.join(row)}.yaml").read_text())


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(NAMES)


@pytest.mark.parametrize("row", pools.ROWS, ids=NAMES)
def test_heads_are_no_workers(row: tuple[str, str, str, str]) -> None:
    head = pools.templates(pools.cluster(*row))["head"]["spec"]
    assert not head.get("tolerations")
    terms = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {one["operator"] for term in terms for one in term["matchExpressions"]} == {"DoesNotExist", "NotIn"}
    assert set(head["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}


def test_a_worker_gets_its_part_of_the_fabric() -> None:
    for gpus, devices in ((8, "32"), (4, "16"), (1, "4")):
        worker = pools.templates(pools.cluster("aws", "karpenter", "on-demand", "efa", gpus))["worker"]
        assert worker["spec"]["containers"][0]["resources"]["limits"]["vpc.amazonaws.com/efa"] == devices


@pytest.mark.parametrize("fabric", ["tcpx", "tcpxo"])
def test_gpudirects_daemon_is_a_sidecar_that_lets_the_pod_complete(fabric: str) -> None:
    made = pools.templates(pools.cluster("gcp", "standard", "on-demand", fabric))
    body = made["worker"]["spec"]
    (daemon,) = body["initContainers"]
    assert (daemon["name"], daemon["restartPolicy"]) == (f"{fabric}-daemon", "Always")
    assert "NET_ADMIN" in daemon["securityContext"]["capabilities"]["add"]
    assert len(body["containers"]) == 1
    assert "initContainers" not in made["head"]["spec"]
    named = yaml.safe_load(made["worker"]["metadata"]["annotations"][f"devices.gke.io/container.{daemon['name']}"])
    devices = [one["path"] for one in named]
    assert devices[:8] == [f"/dev/nvidia{number}" for number in range(8)]
    assert ("/dev/dmabuf_import_helper" in devices) == (fabric == "tcpxo")
    volumes = {one["name"] for one in body["volumes"]}
    assert {mount["name"] for one in (daemon, *body["containers"]) for mount in one["volumeMounts"]} == volumes


@pytest.mark.parametrize(("fabric", "kind"), [("tcpx", "h100-80gb"), ("tcpxo", "h100-mega-80gb")])
def test_gpudirect_where_it_is_not(fabric: str, kind: str) -> None:
    profile = pools.written("gcp", "standard", "on-demand", fabric)
    part = misfit(wanting(4), "a", read(**profile))
    assert f"GTJ0131 a worker of 4 GPUs cannot have fabric {fabric} of ComputeProfile a" in part
    assert "compute.gpusPerWorker: 8" in part
    for accelerator in ({"type": "l4", "perNode": 8}, {"type": kind, "perNode": 4}):
        other = misfit(wanting(4), "a", read(**{**profile, "accelerator": accelerator}))
        assert f"GTJ0131 fabric {fabric} of ComputeProfile a is that of a3-" in other
        assert f"accelerator.type {kind}" in other
    assert not misfit(wanting(8), "a", read(**profile))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fabricImage": None}, "fabric tcpx without fabricImage"),
        ({"networks": []}, "fabric tcpx without networks"),
        ({"networks": ["vpc1", "vpc2"]}, "fabric tcpx with 2 networks"),
        ({"fabric": "none", "networks": []}, "fabric none has no daemon"),
        ({"pool": "autopilot"}, "nodes of gcp/autopilot have no fabric tcpx"),
    ],
)
def test_gpudirect_profiles_that_contradict_themselves(change: dict[str, Any], said: str) -> None:
    profile = {**pools.written("gcp", "standard", "on-demand", "tcpx"), **change}
    kept = {key: value for key, value in profile.items() if value is not None}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": "a"}, "spec": kept}
    _, problems = parse_profile(manifest)
    assert [said in str(one) for one in problems] == [True], problems


@pytest.mark.parametrize("resource", ["google.com/tpu", "aws.amazon.com/neuron", "aws.amazon.com/neuroncore", "xilinx.com/fpga-u30"])
def test_devices_that_torch_cannot_train_on_are_refused_by_name(resource: str) -> None:
    spec = {"accelerator": {"resource": resource, "perNode": 4}}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": "a"}, "spec": spec}
    _, problems = parse_profile(manifest)
    assert [resource in str(one) for one in problems] == [True], problems


def read(**spec: Any) -> ProfileSpec:
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": "a"}, "spec": spec}
    found, problems = parse_profile(manifest)
    assert found is not None, problems
    assert not problems, problems
    return found.spec


def wanting(gpus: int) -> Any:
    return spec(compute={"workers": 2, "gpusPerWorker": gpus})


def test_efa_where_a_worker_gets_none() -> None:
    few = read(
        provider="aws", pool="managed", fabric="efa", accelerator={"type": "a10g", "perNode": 8}, node={"instanceType": "g5.48xlarge"}
    )
    assert "a worker of 1 GPUs gets no EFA device on ComputeProfile a, where a g5.48xlarge has 1: " in misfit(wanting(1), "a", few)
    none = read(provider="aws", pool="managed", fabric="efa", accelerator={"type": "l4", "perNode": 1}, node={"instanceType": "g6.xlarge"})
    assert "a g6.xlarge has 0" in misfit(wanting(1), "a", none)
    unknown = read(provider="aws", pool="managed", fabric="efa", accelerator={"perNode": 8}, node={"instanceType": "p9.large"})
    assert "how many EFA devices a node of ComputeProfile a has is not known" in misfit(wanting(8), "a", unknown)


def test_a_gpu_that_the_pool_does_not_know() -> None:
    odd = read(provider="aws", pool="karpenter", accelerator={"type": "h1000", "perNode": 8})
    said = misfit(wanting(1), "a", odd)
    assert "GTJ0131 ComputeProfile a has accelerator.type h1000, which aws/karpenter does not know" in said
    assert "h100-80gb" in said
    by_class = {"cloud.google.com/compute-class": "gpus"}
    assert not misfit(wanting(1), "a", read(provider="gcp", pool="nap", accelerator={"type": "tomorrows", "perNode": 8}, selector=by_class))


def test_without_a_pool_pods_are_where_the_profile_puts_them() -> None:
    """Profiles that name no pool: their own selector and tolerations, and a head that prefers nodes without GPUs."""
    mine = read(
        selector={"disk": "fast"}, accelerator={"perNode": 4}, tolerations=[{"key": "nvidia.com/gpu"}, {"key": "team", "value": "a"}]
    )
    made = pools.templates(rayjob(JOB, wanting(1), mine, 1, "i"))
    assert made["worker"]["spec"]["nodeSelector"] == {"disk": "fast"}
    assert [one["key"] for one in made["worker"]["spec"]["tolerations"]] == ["nvidia.com/gpu", "team"]
    assert [one["key"] for one in made["head"]["spec"]["tolerations"]] == ["team"]
    assert set(made["head"]["spec"]["affinity"]["nodeAffinity"]) == {"preferredDuringSchedulingIgnoredDuringExecution"}
    cpus = pools.templates(rayjob(JOB, wanting(0), read(), 1, "i"))
    assert not any({"affinity", "tolerations", "nodeSelector"} & set(template["spec"]) for template in cpus.values())


def test_a_heads_own_selector_and_tolerations() -> None:
    there = {"selector": {"pool": "cpu"}, "tolerations": [{"key": "nvidia.com/gpu"}]}
    mine = read(provider="azure", pool="pool", accelerator={"perNode": 8}, node={"instanceType": "Standard_ND96isr_H100_v5"}, head=there)
    head = pools.templates(rayjob(JOB, wanting(8), mine, 1, "i"))["head"]["spec"]
    assert (head["nodeSelector"], head["tolerations"]) == ({"pool": "cpu"}, [{"key": "nvidia.com/gpu", "operator": "Exists"}])
    assert "affinity" not in head


def test_a_jobs_own_affinity_holds_as_well() -> None:
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "ab"]
    theirs = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    mine = read(provider="aws", pool="karpenter", accelerator={"type": "h100", "perNode": 8}, node={"scratch": "nvme"})
    made = rayjob(JOB, spec(pod={"affinity": theirs}, compute={"workers": 2, "gpusPerWorker": 8}), mine, 1, "i")
    both = pools.templates(made)["worker"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    keys = [[one["key"] for one in term["matchExpressions"]] for term in both["nodeSelectorTerms"]]
    assert keys == [["zone", "karpenter.k8s.aws/instance-local-nvme"]] * 2


def test_a_jobs_own_variables_come_before_the_pools() -> None:
    env = [{"name": "NCCL_SOCKET_IFNAME", "value": "eth7"}]
    mine = pools.profile("aws", "managed", "on-demand", "efa")
    made = rayjob(JOB, spec(pod={"env": env}, compute={"workers": 2, "gpusPerWorker": 8}), mine, 1, "i")
    container = pools.templates(made)["worker"]["spec"]["containers"][0]
    assert [one["value"] for one in container["env"] if one["name"] == "NCCL_SOCKET_IFNAME"] == ["eth7"]


def test_the_catalogue_knows_adapters() -> None:
    """Figures of AWS's own tables."""
    found = {name: nodes()[name].efa for name in ("p4d.24xlarge", "p5.48xlarge", "p5en.48xlarge", "p6-b200.48xlarge", "g6e.48xlarge")}
    assert found == {"p4d.24xlarge": 4, "p5.48xlarge": 32, "p5en.48xlarge": 16, "p6-b200.48xlarge": 8, "g6e.48xlarge": 4}
    assert efa_of(None, "h100-80gb", 8) == 32
    assert efa_of(None, "h200-141gb", 8) is None, "two types, of 32 and 16"


if __name__ == "__main__":
    for row in pools.ROWS:
        (GOLDEN / f"{'-'.join(row)}.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(written(row))), sort_keys=False))
