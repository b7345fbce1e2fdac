"""A real one-node Kubernetes cluster: control plane, kubelet with containerd and runc, kube-proxy, kube-router (network policies), CoreDNS.

All of it lives in one network namespace with no route to the outside, so that nothing it runs can leave the machine. It needs Linux, root
and a few Debian packages; `missing()` says what is not there. Its processes outlive the command that starts them and are known by the
files in its folder, so that any later command finds the cluster, and can take down what a killed one left.

    python -m tests.cluster.node up | down | status      `up` takes half a minute and changes nothing that already runs
    python -m tests.cluster.node load IMAGE.tar...       archives into the node
    python -m tests.cluster.node exec COMMAND...         with its KUBECONFIG, in its network
    python -m tests.cluster.node clear                   `down`, and forget the images, which `down` keeps
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster import archive, settings
from tests.cluster.binaries import PROGRAMS, Unavailable, binary
from tests.cluster.identities import Identities

FOLDER = Path(os.environ.get("GENTRAIN_CLUSTER", "/var/lib/gentrain-cluster"))
NETNS = "gentrain"
START_SECONDS = 120.0
# The Debian package of each program that is neither built nor Python's.
TOOLS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "gcc": "gcc",
    f"{settings.PLUGINS}/ptp": "containernetworking-plugins",
}
# Stopped first is what would start the others' work again. Asked politely an API server drains for a minute, so it is killed.
STOPPING = ("kubelet", "kube-proxy", "kube-router", "kube-controller-manager", "kube-scheduler", "coredns")


def missing() -> str:
    """Why there can be no node here; empty when there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "no node: it needs Linux and root"
    absent = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    return f"no node: apt-get install {' '.join(absent)}" if absent else ""


@dataclass(frozen=True)
class Node:
    """The cluster whose files are in `folder`."""

    folder: Path = FOLDER
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    @property
    def identities(self) -> Identities:
        return Identities(self.folder / "pki", settings.NODE)

    @property
    def prefix(self) -> list[str]:
        """What has to stand before a command so that it runs in the cluster's network. Not `ip netns exec`, which hides the cgroups."""
        return ["nsenter", f"--net=/var/run/netns/{NETNS}"]

    def kubectl(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, str(binary("kubectl")), f"--kubeconfig={self.identities.admin}", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def ready(self) -> bool:
        """Whether the node takes pods."""
        if not Path(f"/var/run/netns/{NETNS}").exists() or not self.identities.admin.exists():
            return False
        return self.kubectl("wait", "--for=condition=Ready", "node/node-1", "--timeout=1s").returncode == 0

    # -- up

    def up(self) -> None:
        """Raises Unavailable when it cannot be had here, and RuntimeError with a log's end when something does not start. Of a node that
        is there already, what has ended is started again."""
        if self.ready():
            for name in settings.arguments(self.folder, self.identities):
                if not self.alive(name):
                    self.start(name)
            self._wait("kubelet", self.ready)
            return
        if reason := missing():
            raise Unavailable(reason)
        if any(self.folder.glob("*.pid")):
            self.down()
        for program in PROGRAMS:
            binary(program, self.say)
        for name in ("log", "cni", "kubelet"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._network()
        self.identities.make()
        for name, text in (
            ("cni/10-pods.conflist", settings.network()),
            ("containerd.toml", settings.containerd(self.folder)),
            ("kubelet.json", settings.kubelet(self.folder, self.identities)),
            ("Corefile", settings.corefile(self.identities)),
        ):
            (self.folder / name).write_text(text)
        for name in settings.arguments(self.folder, self.identities):
            self.start(name)
        for name in settings.arguments(self.folder, self.identities):
            self._wait(name, self.ready)

    def start(self, name: str) -> None:
        """One program, until the next may follow."""
        if name == "kube-router":  # which ends when it does not find its node
            self._wait("kubelet", self.ready)
        words = settings.arguments(self.folder, self.identities)[name]
        program = str(binary(name)) if name in PROGRAMS else name
        with open(self.folder / "log" / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [*self.prefix, program, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, start_new_session=True
            )
        (self.folder / f"{name}.pid").write_text(f"{process.pid} {_began(process.pid)}")
        if name == "kube-apiserver":
            self._wait(name, lambda: self.kubectl("get", "--raw", "/readyz").returncode == 0)
        if name == "containerd":
            self._wait(name, lambda: self._ctr("version").returncode == 0)
            self.load(archive.pause(self.folder))

    def _network(self) -> None:
        if Path(f"/var/run/netns/{NETNS}").exists():
            return
        inside = ["ip", "-n", NETNS]
        for command in (
            ["ip", "netns", "add", NETNS],
            [*inside, "link", "set", "lo", "up"],
            # A bridge without ports carries the node's address: not every kernel has dummy devices.
            [*inside, "link", "add", "node0", "type", "bridge"],
            [*inside, "addr", "add", f"{settings.NODE}/24", "dev", "node0"],
            [*inside, "link", "set", "node0", "up"],
            [*inside, "route", "add", "default", "dev", "node0"],
            [*self.prefix, "sysctl", "-qw", "net.ipv4.ip_forward=1"],
        ):
            subprocess.run(command, check=True)

    def _wait(self, name: str, there: Callable[[], bool]) -> None:
        """Until `there` holds while the program runs: what has ended is not up, whatever else is."""
        deadline = time.monotonic() + START_SECONDS
        while not (self.alive(name) and there()):
            if time.monotonic() > deadline or not self.alive(name):
                words = (self.folder / "log" / f"{name}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} did not come up:\n{words}")
            time.sleep(0.2)

    # -- images

    def _ctr(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["ctr", "-a", f"{self.folder}/containerd.sock", "-n", "k8s.io", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def load(self, path: Path) -> None:
        """An image archive, as docker or OCI write them, into the node."""
        done = self._ctr("images", "import", str(path))
        if done.returncode:
            raise RuntimeError(f"{path} could not be loaded: {done.stderr.strip()[-1000:]}")

    def receive(self, write: Callable[[IO[bytes]], None]) -> None:
        """An archive that `write` writes, without a file in between."""
        command = ["ctr", "-a", f"{self.folder}/containerd.sock", "-n", "k8s.io", "images", "import", "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stderr
            with contextlib.suppress(BrokenPipeError):
                write(process.stdin)
                process.stdin.close()
            said = process.stderr.read().decode()
        if process.returncode:
            raise RuntimeError(f"an image could not be loaded: {said.strip()[-1000:]}")

    def images(self) -> set[str]:
        return set(self._ctr("images", "ls", "-q").stdout.split())

    def blobs(self) -> set[str]:
        """Digests of what the node has of its images' layers."""
        return set(self._ctr("content", "ls", "-q").stdout.split())

    # -- down

    def alive(self, name: str) -> bool:
        return self._pid(name) is not None

    def _pid(self, name: str) -> int | None:
        """The process that was started as `name`, unless it is gone and its number another's."""
        with contextlib.suppress(OSError, ValueError):
            pid, began = (self.folder / f"{name}.pid").read_text().split()
            if _began(int(pid)) == began:
                return int(pid)
        return None

    def stop(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one program and wait until it is gone."""
        pid = self._pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + 10
            while self.alive(name) and time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                time.sleep(0.05)
            if self.alive(name):
                os.kill(pid, signal.SIGKILL)
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def down(self) -> None:
        """Ends what runs, pods included, and removes what a next `up` makes anew. May be repeated, whatever an earlier one left."""
        for name in STOPPING:
            self.stop(name, signal.SIGTERM)
        self._end_pods()
        self.stop("containerd", signal.SIGTERM)
        for name in ("etcd", "kube-apiserver"):
            self.stop(name)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([one for one in mounts if one.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        for namespace in Path("/var/run/netns").glob("cni-*"):
            subprocess.run(["ip", "netns", "del", namespace.name], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", NETNS], check=False, capture_output=True)
        for name in ("etcd", "kubelet", "log", "containerd-state", "pki"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree("/var/lib/cni/networks/pods", ignore_errors=True)  # the addresses that pods had

    def _end_pods(self) -> None:
        for task in self._ctr("tasks", "ls", "-q").stdout.split():
            self._ctr("tasks", "kill", "-s", "9", task)
        deadline = time.monotonic() + 20
        while "RUNNING" in self._ctr("tasks", "ls").stdout and time.monotonic() < deadline:
            time.sleep(0.2)
        for container in self._ctr("containers", "ls", "-q").stdout.split():
            self._ctr("tasks", "rm", "-f", container)
            self._ctr("containers", "rm", container)

    def clear(self) -> None:
        self.down()
        shutil.rmtree(self.folder, ignore_errors=True)


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did: with it, a process's number is nobody else's. OSError: there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] == "Z":
        raise ProcessLookupError(pid)
    return fields[19]


def main(words: Sequence[str]) -> int:
    node = Node()
    verb, rest = (words[0], words[1:]) if words else ("", [])
    try:
        if verb == "up":
            began = time.monotonic()
            node.up()
            print(
                f"the node is ready ({time.monotonic() - began:.0f} s); in its network: python -m tests.cluster.node exec kubectl get nodes"
            )
        elif verb in ("down", "clear"):
            getattr(node, verb)()
        elif verb == "status":
            for name in settings.arguments(node.folder, node.identities):
                print(f"{name:26}{'up' if node.alive(name) else 'down'}")
        elif verb == "load" and rest:
            for path in rest:
                node.load(Path(path))
        elif verb == "exec" and rest:
            os.environ["KUBECONFIG"] = str(node.identities.admin)
            os.environ["PATH"] = os.pathsep.join([*(str(binary(name).parent) for name in ("kubectl", "helm")), os.environ["PATH"]])
            os.execvp("nsenter", [*node.prefix, *rest])
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (Unavailable, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
