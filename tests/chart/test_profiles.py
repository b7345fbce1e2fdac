"""The profiles that ship are valid, and their jobs fit their nodes; the samples that ship run on a cluster as their comment says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gentrain_operator.rayjob import rayjob
from trainjobs.api.job import Job, Spec
from trainjobs.api.profile import Profile
from trainjobs.head.__main__ import refuse_unshared

SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))
PROFILES = sorted((Path(__file__).parents[2] / "manifests" / "profiles").glob("*.yaml"))


def test_a_cpu_pool_and_a_gpu_pool_of_each_cloud() -> None:
    found = [Profile.model_validate({k: v for k, v in yaml.safe_load(path.read_text()).items() if k != "metadata"}) for path in PROFILES]
    pools = sorted((one.spec.provider, one.spec.accelerator.per_node > 0) for one in found)
    assert pools == [*((cloud, gpus) for cloud in ("aws", "azure", "gcp") for gpus in (False, True)), ("generic", False)]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_workers_ask_for_what_the_nodes_offer(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    profile = Profile.model_validate({key: value for key, value in manifest.items() if key != "metadata"}).spec
    assert manifest["metadata"]["name"] == path.stem
    gpus = profile.accelerator.per_node
    spec = Spec.model_validate(
        {
            "vae": {},
            "data": {"source": "builtin:digits"},
            "training": {"steps": 1},
            "compute": {"gpusPerWorker": gpus, "profiles": [path.stem]},
        }
    )
    job = {"apiVersion": "v", "kind": "k", "metadata": {"name": "job", "namespace": "n", "uid": "u"}}
    cluster = rayjob(job, spec, profile, 1, "image")["spec"]["rayClusterSpec"]
    pod = cluster["workerGroupSpecs"][0]["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits["cpu"] == profile.node.cpu
    assert limits.get("nvidia.com/gpu") == (str(gpus) if gpus else None)
    if profile.provider != "generic":
        assert pod["nodeSelector"]["node.kubernetes.io/instance-type"] in path.read_text().splitlines()[0]
    if gpus:
        head = cluster["headGroupSpec"]["template"]["spec"].get("nodeSelector", {})
        pool = yaml.safe_load((path.parent / f"{path.stem.split('-')[0]}-cpu.yaml").read_text())
        assert head == pool["spec"]["selector"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_needs_a_store_on_a_cluster_and_nothing_else(path: Path) -> None:
    """The same bytes train on a laptop. Of several workers' pods the driver asks for a place that all of them reach."""
    uri = f"s3://bucket/{path.stem}"
    assert f"--set checkpoints.uri={uri.replace('bucket', '<bucket>')}\n" in path.read_text()
    manifest = yaml.safe_load(path.read_text())
    manifest["spec"]["checkpoints"]["uri"] = uri
    refuse_unshared(Job.model_validate(manifest))
