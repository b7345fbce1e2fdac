"""A real Ray cluster whose nodes share nothing but a volume for checkpoints."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from shell import ROOT

PATIENCE = 300.0  # seconds; a busy machine is slow, a right one is not waited for


def until(condition: Callable[[], Any], process: subprocess.Popen[Any], output: Path) -> Any:
    """The condition's first true value, which the process brings about: polling is all there is."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)
    return value


class Cluster:
    """`head` is the head's folder for temporary files, `volume` is what all nodes mount, `code` has `objective` as objective.py. `each` is
    what a node says it has: a core, unless told otherwise."""

    def __init__(self, folder: Path, objective: str, *, each: Sequence[str] = ("--num-cpus=1",), **environment: str) -> None:
        self._folder, self._each, self._environment = folder, each, environment
        self.head, self.volume, self.code = (folder / name for name in ("head", "volume", "code"))
        self.runs = self.head / "runs"
        for path in (self.volume, self.code, self.runs):
            path.mkdir(parents=True)
        (self.code / "objective.py").write_text(objective)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._token = secrets.token_hex(32)
        self._nodes: list[subprocess.Popen[bytes]] = []

    def environment(self, temporary: Path) -> dict[str, str]:
        ours = {"PYTHONPATH": f"{ROOT}:{self.code}", "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "RAY_USAGE_STATS_ENABLED": "0"}
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token}  # as KubeRay does
        # Processes that would only be slow to start.
        ours |= {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
        return {**{name: value for name, value in os.environ.items() if not name.startswith("RAY_")}, **ours, **self._environment}

    def start(self) -> None:
        """The head and one worker."""
        port = self.address.split(":")[1]
        self._node(self.head, "--head", f"--port={port}", "--include-dashboard=false")
        until(self._answers, self._nodes[0], self.head / "node.log")
        self.worker = self.add("worker")

    def add(self, name: str) -> subprocess.Popen[bytes]:
        """A worker's node; the process is `ray start --block`, as it is the first of a pod."""
        (self._folder / name).mkdir()
        script = f"mount -t tmpfs tmpfs '{self.runs}' && exec \"$@\""
        hidden = ["unshare", "-Urm", "sh", "-ec", script, "sh"]
        works = shutil.which("unshare") and subprocess.run([*hidden, "true"], capture_output=True).returncode == 0
        options = (f"--address={self.address}", "--dashboard-agent-listen-port=0")
        return self._node(self._folder / name, *options, within=hidden if works else [])

    def _node(self, temporary: Path, *options: str, within: list[str] | None = None) -> subprocess.Popen[bytes]:
        common = ["--block", *self._each, "--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0"]
        command = [*(within or []), sys.executable, "-m", "ray.scripts.scripts", "start", *common, *options]
        with (temporary / "node.log").open("wb") as log:
            self._nodes.append(
                subprocess.Popen(command, env=self.environment(temporary), stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            )
        return self._nodes[-1]

    def _answers(self) -> bool:
        host, port = self.address.split(":")
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """At once: a node that is asked to end takes its time, and nothing of it is needed."""
        for node in self._nodes:
            kill(node)


def kill(node: subprocess.Popen[bytes]) -> None:
    """A machine that is gone, with everything on it."""
    if node.poll() is not None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(node.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    node.kill()
    node.wait()
