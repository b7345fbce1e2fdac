"""The chart as the real helm sees it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.binaries import binary
from tests.cluster.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "gentrain"
RELEASE, NAMESPACE = "gentrain", "gentrain-system"
# What a cluster says that has our kinds and KubeRay's.
READY = ("--api-versions=gentrain.dev/v1alpha1", "--api-versions=ray.io/v1")

Object = dict[str, Any]


def helm(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A failure raises AssertionError with what helm said, unless `check` is off."""
    done = subprocess.run([str(binary("helm")), *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
    return done


def on(cluster: ControlPlane, *arguments: str, namespace: str = NAMESPACE) -> str:
    """Helm on a cluster; what it printed."""
    return helm(*arguments, f"--kubeconfig={cluster.kubeconfig}", f"--namespace={namespace}").stdout


def text(*arguments: str, chart: Path = CHART) -> str:
    return helm("template", RELEASE, str(chart), f"--namespace={NAMESPACE}", *READY, *arguments).stdout


def rendered(*arguments: str) -> list[Object]:
    """What an installation is made of; hooks, that is the test, are not."""
    found = [one for one in yaml.safe_load_all(text(*arguments)) if one]
    return [one for one in found if "helm.sh/hook" not in one["metadata"].get("annotations", {})]


def objects(*arguments: str) -> dict[tuple[str, str], Object]:
    """The same by kind and name, where those are enough to tell them apart."""
    found = rendered(*arguments)
    named = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(named) == len(found), "two objects of one name"
    return named


def kinds(*arguments: str) -> set[str]:
    return {kind for kind, _ in objects(*arguments)}
