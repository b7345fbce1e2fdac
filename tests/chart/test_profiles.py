"""The profiles that ship: valid for the models, and their jobs fit their nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gentrain_operator.rayjob import rayjob
from trainjobs.api.job import Spec
from trainjobs.api.profile import Profile

PROFILES = sorted((Path(__file__).parents[2] / "manifests" / "profiles").glob("*.yaml"))


def test_a_cpu_pool_and_a_gpu_pool_of_each_cloud() -> None:
    found = [Profile.model_validate({k: v for k, v in yaml.safe_load(path.read_text()).items() if k != "metadata"}) for path in PROFILES]
    pools = sorted((one.spec.provider, one.spec.accelerator.per_node > 0) for one in found)
    assert pools == [(cloud, gpus) for cloud in ("aws", "azure", "gcp") for gpus in (False, True)]


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
    assert pod["nodeSelector"]["node.kubernetes.io/instance-type"] in path.read_text().splitlines()[0]
    if gpus:
        head = cluster["headGroupSpec"]["template"]["spec"]["nodeSelector"]
        pool = yaml.safe_load((path.parent / f"{path.stem.split('-')[0]}-cpu.yaml").read_text())
        assert head == pool["spec"]["selector"]
