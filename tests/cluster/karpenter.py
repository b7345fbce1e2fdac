"""Karpenter's own definitions of NodePool and EC2NodeClass, and eksctl's schema of a ClusterConfig, from modules of the Go proxy.

They are looked for in the cache and not fetched unasked: `python -m tests.cluster.karpenter` fetches them, once. AKS' definition of
AKSNodeClass is in no module that the proxy serves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane

CACHE = Path.home() / ".cache" / "gentrain"
KARPENTER, EKSCTL = "github.com/aws/karpenter-provider-aws@v1.15.2", "github.com/weaveworks/eksctl@v0.215.0"
# By the module, its folder in the cache and what is kept of it.
KEPT = {
    KARPENTER: ("karpenter-provider-aws-v1.15.2", "pkg/apis/crds"),
    EKSCTL: ("eksctl-v0.215.0", "pkg/apis/eksctl.io/v1alpha5/assets"),
}


def provided(module: str) -> Path:
    """The folder of what is kept of a module. Unavailable where it is not in the cache."""
    name, inside = KEPT[module]
    folder = CACHE / name / "data" / inside
    if not folder.is_dir():
        raise Unavailable(f"{name} is not in the cache: python -m tests.cluster.karpenter fetches it, once")
    return folder


def fetch(module: str) -> Path:
    name, inside = KEPT[module]
    if not (CACHE / name / "data").exists():
        # A module may ask for a later Go than is here, which is told beside its folder and is nothing to us, who only read it.
        said = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, check=False).stdout
        listing = ["go", "env", "GOMODCACHE"]
        modules = Path(subprocess.run(listing, capture_output=True, text=True, check=True).stdout.strip())
        source = Path(json.loads(said).get("Dir") or modules / module) / inside
        partial = CACHE / name / f".{os.getpid()}.partial"
        shutil.copytree(source, partial / inside)
        os.replace(partial, CACHE / name / "data")
    return provided(module)


def install(cluster: ControlPlane) -> None:
    """Karpenter's definitions as its provider for AWS has them, and as much of AKS' as applying an AKSNodeClass takes."""
    cluster.kubectl("apply", "--server-side", "-f", str(provided(KARPENTER)))
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    azure = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "aksnodeclasses.karpenter.azure.com"},
        "spec": {
            "group": "karpenter.azure.com",
            "scope": "Cluster",
            "names": {"plural": "aksnodeclasses", "singular": "aksnodeclass", "kind": "AKSNodeClass"},
            "versions": [{"name": "v1beta1", "served": True, "storage": True, "schema": anything}],
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(azure))
    for group, kinds in (("karpenter.sh", 3), ("karpenter.k8s.aws", 1), ("karpenter.azure.com", 1)):
        cluster.wait_for_kinds(group, kinds)


if __name__ == "__main__":
    for wanted in KEPT:
        print(fetch(wanted))
