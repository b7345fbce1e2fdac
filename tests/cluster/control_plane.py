"""A real Kubernetes control plane on 127.0.0.1: etcd and kube-apiserver as ordinary processes, ready in about three seconds.

No root, no containers, no network beyond the loopback device. There is no kubelet and no scheduler: pods are objects that
nobody runs. The controller manager is started only for tests that want garbage collection or namespaces to go away.

`python -m tests.cluster.control_plane` runs one until it is interrupted and prints its KUBECONFIG.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.binaries import binary
from trainjobs.api import crd

START_TIMEOUT = 180.0  # seconds; three on an idle machine
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Runs in the child: a test run that is killed must not leave an API server behind. Linux only, elsewhere a no-op."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on; all are held until the last one is found, so that they differ."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


@dataclass
class ControlPlane:
    """One cluster. Each process can be stopped and started again on its own, on the same ports and data: that is what fault tests do."""

    folder: Path
    say: Callable[[str], None]
    admin_token: str = field(default_factory=lambda: secrets.token_hex(16))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.etcd_port, self.peer_port, self.port = free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.certificate = self.folder / "server.crt"
        self._openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=kube-apiserver "
            "-addext subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc "
            "-keyout server.key -out server.crt"
        )
        self._openssl("ecparam -name prime256v1 -genkey -noout -out accounts.key")
        (self.folder / "tokens.csv").write_text(f'{self.admin_token},admin,admin,"system:masters"\n')
        self.kubeconfig = self.write_kubeconfig("admin", self.admin_token)

    def _openssl(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self.folder, check=True, capture_output=True)

    def write_kubeconfig(self, user: str, token: str, url: str = "") -> Path:
        """A kubeconfig for `token` (an admin's or a service account's), for another way to the server when `url` is given. JSON is YAML."""
        path = self.folder / f"{user}.kubeconfig"
        cluster = {"server": url or self.url, "certificate-authority": str(self.certificate)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(content))
        return path

    def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )

    def start_apiserver(self, *flags: str, wants_accounts: bool = False) -> None:
        """With more flags than the usual ones, if given. `wants_accounts`: as in a whole cluster no pod is taken whose account is missing;
        here nothing makes a namespace's default account, so whoever asks for this makes it."""
        accounts = self.folder / "accounts.key"
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self.certificate}",
            f"--tls-private-key-file={self.folder / 'server.key'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--anonymous-auth=true",
            *(() if wants_accounts else ("--disable-admission-plugins=ServiceAccount",)),
            "--endpoint-reconciler-type=none",
            *flags,
        )
        self._wait_until_ready()

    def start_controller_manager(self, *more: str) -> None:
        """With more controllers than the usual ones, if given."""
        (port,) = free_ports(1)
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            f"--controllers={','.join(('garbage-collector-controller', 'namespace-controller', 'serviceaccount-controller', *more))}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
        )

    def start_scheduler(self) -> None:
        (port,) = free_ports(1)
        self._start(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig}",
            "--authentication-kubeconfig=",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
        )

    def compact(self, revision: int) -> None:
        """Makes etcd forget history before `revision`: watches from there on are told that their version expired."""
        url = f"http://127.0.0.1:{self.etcd_port}/v3/kv/compaction"
        body = json.dumps({"revision": str(revision), "physical": True}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=10) as answer:
            answer.read()

    def stop(self, name: str) -> None:
        """Kills one process at once: asked politely, an API server drains for a minute. What it had written is in etcd's files."""
        process = self.processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            self.stop(name)

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator. A failure raises AssertionError with what it said, unless `check` is off."""
        options = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'discovery'}"]
        command = [str(binary("kubectl", self.say)), *options, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done

    def define(self, kuberay: str | Path, kinds: int = 2, ours: Iterable[Mapping[str, Any]] | None = None) -> None:
        """Have it know our kinds, and KubeRay's, of which the file or folder `kuberay` defines so many. `ours`: in place of our
        definitions as they are."""
        for definition in crd.definitions().values() if ours is None else ours:
            self.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
        self.kubectl("apply", "--server-side", "-f", str(kuberay))
        self.wait_for_kinds("gentrain.dev", 2)
        self.wait_for_kinds("ray.io", kinds)

    def wait_for_kinds(self, group: str, count: int) -> None:
        """Until discovery, which trails behind new definitions by a second, knows `count` kinds of a group, and they can be listed."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            kinds = self.kubectl("api-resources", f"--api-group={group}", "--cached=false", "-o", "name").stdout.split()
            # A new kind answers 429 until its storage is ready.
            if len(kinds) >= count and self.kubectl("get", ",".join(kinds), "--all-namespaces", check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"{group} was not served after {START_TIMEOUT:.0f} s")

    def _start(self, name: str, *arguments: str) -> None:
        path = binary(name, self.say)
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen([path, *arguments], stdout=log, stderr=log, cwd=self.folder, preexec_fn=_die_with_parent)
        self.processes[name] = process

    def _wait_until_ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self.certificate))
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {self.admin_token}"})
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, timeout=2, context=context):
                return
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} exited with {process.returncode}: {self._last_words(name)}")
            time.sleep(0.05)
        raise RuntimeError(f"the API server was not ready after {START_TIMEOUT:.0f} s: {self._last_words('kube-apiserver')}")

    def _last_words(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def control_plane(folder: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[ControlPlane]:
    """A cluster with its data in `folder` (new and empty). Raises binaries.Unavailable when it cannot be had on this machine."""
    for name in ("etcd", "kube-apiserver", "kubectl"):
        binary(name, say)
    cluster = ControlPlane(folder, say)
    try:
        cluster.start_etcd()
        cluster.start_apiserver()
        yield cluster
    finally:
        cluster.stop_all()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, control_plane(Path(folder), lambda line: print(line, file=sys.stderr)) as running:
        running.start_controller_manager()
        print(f"export KUBECONFIG={running.kubeconfig}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
