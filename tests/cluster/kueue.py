"""The real Kueue and, beside it, a real KubeRay, as ordinary processes beside a control plane. No root, no containers.

Both come from the Go module proxy and are built once into the cache, minutes each, so tests that want them are skipped where they are in
neither place, unless GENTRAIN_KUEUE=build asks for it. `python -m tests.cluster.kueue` builds them, and what autoscaled.py runs.

Kueue asks for certificates at a fixed path when it does not manage its own, which it can only in a cluster that resolves its Service. It
therefore runs in a mount namespace (of a user namespace, where we are not root) in which /etc is a folder of ours.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from gentrain_operator.kube.resource import Resource
from tests.cluster.at_work import Bench
from tests.cluster.binaries import HERE, OTHERS, Unavailable, binary
from tests.cluster.control_plane import ControlPlane, control_plane, free_ports
from tests.cluster.program import Program

MODULES = {
    "kueue": "sigs.k8s.io/kueue",
    "ray-operator": "github.com/ray-project/kuberay/ray-operator",
    "karpenter-kwok": "sigs.k8s.io/karpenter",
    "kwok": "sigs.k8s.io/kwok",
}
# Which of each module's files its program needs in a cluster.
DATA = {
    "kueue": ("config/components/crd/bases", "config/components/webhook"),
    "ray-operator": ("config/crd/bases",),
    "karpenter-kwok": ("pkg/apis/crds", "kwok/apis/crds"),
    "kwok": ("kustomize/stage/node/fast", "kustomize/stage/pod/fast"),
}
CLUSTER_QUEUES = Resource("kueue.x-k8s.io", "v1beta2", "clusterqueues", "ClusterQueue")
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload")
FRAMEWORKS = ("kueue.x-k8s.io", "ray.io")


def provide(name: str, say: Callable[[str], None] = lambda line: None) -> tuple[Path, Path]:
    """The program, and the folder with its module's data. Unavailable where it is not in the cache and not asked for."""
    folder = Path.home() / ".cache" / "gentrain" / OTHERS[name].cache
    if not (folder / "data").exists() or not (folder / name).exists():
        if os.environ.get("GENTRAIN_KUEUE") != "build":
            raise Unavailable(f"{name} is not in the cache: python -m tests.cluster.kueue {name} builds it, minutes, once")
        program = binary(name, say)
        listing, module = ["go", "list", "-m", "-f", "{{.Dir}}", MODULES[name]], HERE / str(OTHERS[name].module)
        found = subprocess.run(listing, cwd=module, capture_output=True, text=True, check=True)
        for part in DATA[name]:
            shutil.copytree(Path(found.stdout.strip()) / part, program.parent / "partial" / part, dirs_exist_ok=True)
        os.replace(program.parent / "partial", folder / "data")
    return folder / name, folder / "data"


class Kueue:
    """Kueue at work on a control plane that knows RayJobs. `stop` ends it; what it had written stays."""

    def __init__(self, cluster: ControlPlane, say: Callable[[str], None] = lambda line: None) -> None:
        self._cluster, self._folder = cluster, cluster.folder / "kueue"
        self._program, self._data = provide("kueue", say)
        self._process = Program("kueue", self._folder)
        self._webhook, self._health, self._metrics = free_ports(3)
        self._etc = self._folder / "etc"
        certificates = self._etc / "kueue" / "metrics" / "certs"
        certificates.mkdir(parents=True)
        command = (
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=kueue -addext subjectAltName=IP:127.0.0.1"
        )
        subprocess.run(
            ["openssl", *command.split(), "-keyout", "tls.key", "-out", "tls.crt"], cwd=certificates, check=True, capture_output=True
        )
        self._certificates = certificates

    def _configuration(self, gates: Iterable[str]) -> dict[str, Any]:
        return {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health}"},
            "metrics": {"bindAddress": f"127.0.0.1:{self._metrics}"},
            "webhook": {"host": "127.0.0.1", "port": self._webhook, "certDir": str(self._certificates)},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "featureGates": {"VisibilityOnDemand": False, **dict.fromkeys(gates, True)},
            "integrations": {"frameworks": ["ray.io/rayjob", "ray.io/raycluster"]},
        }

    def start(self, *gates: str) -> None:
        """Installs its definitions and webhooks, and returns when it is ready; with these feature gates on."""
        self._cluster.kubectl("apply", "--server-side", "-f", str(self._data / "config/components/crd/bases"))
        self._cluster.wait_for_kinds("kueue.x-k8s.io", 11)
        self._cluster.kubectl("create", "namespace", "kueue-system", check=False)
        self.run(*gates)
        self._cluster.kubectl("apply", "--server-side", "-f", "-", stdin=self._webhooks())

    def run(self, *gates: str) -> None:
        """Its process alone, as after `kill`; returns when it is ready."""
        (self._folder / "config.yaml").write_text(json.dumps(self._configuration(gates)))
        inside = f'mount --bind "{self._etc}" /etc && exec "{self._program}" --config="{self._folder / "config.yaml"}"'
        unshare = ("unshare", "--user", "--map-root-user", "--mount", "--kill-child", "sh", "-c")
        self._process.start([*unshare, inside], KUBECONFIG=str(self._cluster.kubeconfig))
        self._process.wait_until_ready(self._health)

    def kill(self) -> None:
        """The process, at once. Its webhooks stay, and refuse every RayJob until `run`."""
        self._process.kill()

    def _webhooks(self) -> str:
        """Its own webhook configurations, of the kinds that it serves here, by address instead of by Service."""
        authority = base64.b64encode((self._certificates / "tls.crt").read_bytes()).decode()
        kept = []
        for configuration in yaml.safe_load_all((self._data / "config/components/webhook/manifests.yaml").read_text()):
            hooks = [one for one in configuration["webhooks"] if one["rules"][0]["apiGroups"][0] in FRAMEWORKS]
            hooks = [one for one in hooks if "rayservice" not in one["clientConfig"]["service"]["path"]]
            for one in hooks:
                path = one["clientConfig"]["service"]["path"]
                one["clientConfig"] = {"url": f"https://127.0.0.1:{self._webhook}{path}", "caBundle": authority}
            kept.append({**configuration, "metadata": {"name": f"kueue-{configuration['kind'].lower()}"}, "webhooks": hooks})
        return "\n---\n".join(map(json.dumps, kept))

    def stop(self) -> None:
        """Ends it, and takes its webhooks away: without it they would refuse every RayJob."""
        self.kill()
        for kind in ("mutating", "validating"):
            name = f"kueue-{kind}webhookconfiguration"
            self._cluster.kubectl("delete", f"{kind}webhookconfiguration", name, "--ignore-not-found", check=False)


def admitting(cluster: ControlPlane, namespace: str, *, cpu: str, name: str = "team") -> None:
    """Makes the queues of `queues`, and returns when Kueue admits to the LocalQueue."""
    cluster.kubectl("apply", "-f", "-", stdin=queues(namespace, cpu=cpu, name=name))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Active", f"localqueue/{name}", "--timeout=60s")


class RayOperator:
    """KubeRay's operator at work on a control plane. Without a kubelet its pods stay pending, so no Ray job is ever submitted."""

    def __init__(self, cluster: ControlPlane, say: Callable[[str], None] = lambda line: None) -> None:
        self._cluster = cluster
        self._program, data = provide("ray-operator", say)
        self._process = Program("ray-operator", cluster.folder)
        self.definitions = data / "config/crd/bases"

    def start(self) -> None:
        health, metrics = free_ports(2)
        flags = ("-enable-leader-election=false", f"-health-probe-bind-address=127.0.0.1:{health}", f"-metrics-addr=127.0.0.1:{metrics}")
        self._process.start([self._program, *flags], KUBECONFIG=str(self._cluster.kubeconfig))

    def stop(self) -> None:
        self._process.kill()


@contextlib.contextmanager
def queueing(folder: Path, kuberay_crds: str | None, say: Callable[[str], None]) -> Iterator[tuple[ControlPlane, Kueue]]:
    """A control plane with Kueue, the definitions of KubeRay and ours, and garbage collection; without `kuberay_crds` with KubeRay itself,
    of the version that Kueue is built with. Unavailable where they cannot be had."""
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(control_plane(folder, say))
        kueue, kuberay = Kueue(running, say), None if kuberay_crds else RayOperator(running, say)
        running.define(kuberay.definitions if kuberay else str(kuberay_crds), kinds=3 if kuberay else 2)
        stack.callback(kueue.stop)
        kueue.start()
        if kuberay:
            stack.callback(kuberay.stop)
            kuberay.start()
        running.start_controller_manager()
        yield running, kueue


def used(bench: Bench) -> str:
    """The CPUs that the ClusterQueue of `admitting` counts as given away."""
    found = bench.client.get(CLUSTER_QUEUES, None, f"{bench.namespace}-team").get("status") or {}
    totals = [one["total"] for flavor in found.get("flavorsUsage", ()) for one in flavor["resources"] if one["name"] == "cpu"]
    return totals[0] if totals else ""


def queues(namespace: str, *, cpu: str, name: str = "team") -> str:
    """A flavor, a ClusterQueue with so many CPUs for this namespace, and a LocalQueue of that name, as manifests."""
    group, both = "kueue.x-k8s.io/v1beta2", f"{namespace}-{name}"
    room = [{"name": "cpu", "nominalQuota": cpu}, {"name": "memory", "nominalQuota": "1000Gi"}]
    groups = [{"coveredResources": ["cpu", "memory"], "flavors": [{"name": both, "resources": room}]}]
    cluster: dict[str, Any] = {"namespaceSelector": {}, "resourceGroups": groups, "preemption": {"withinClusterQueue": "LowerPriority"}}
    objects: list[dict[str, Any]] = [
        {"apiVersion": group, "kind": "ResourceFlavor", "metadata": {"name": both}},
        {"apiVersion": group, "kind": "ClusterQueue", "metadata": {"name": both}, "spec": cluster},
        {"apiVersion": group, "kind": "LocalQueue", "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterQueue": both}},
    ]
    return "\n---\n".join(map(json.dumps, objects))


def bare_definition(plural: str, kind: str) -> dict[str, Any]:
    """As much of Kueue's definitions as reading them takes: its own are not at hand."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.kueue.x-k8s.io", "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
        "spec": {
            "group": "kueue.x-k8s.io",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [{"name": "v1beta1", "served": True, "storage": True, "schema": schema}],
        },
    }


if __name__ == "__main__":
    os.environ["GENTRAIN_KUEUE"] = "build"
    for wanted in sys.argv[1:] or MODULES:
        print(*provide(wanted, lambda line: print(line, file=sys.stderr)))
