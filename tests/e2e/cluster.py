"""The cluster of an end-to-end test, as its user has it: kubectl, helm and gtj with a kubeconfig, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.binaries import binary
from tests.cluster.node import Node

ROOT = Path(__file__).parents[2]
Object = dict[str, Any]
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Images:
    operator: str
    trainer: str
    s3: str


@dataclass(frozen=True)
class Cluster:
    """`prefix` stands before every command, `node` is the cluster when it is ours, which a test may then treat roughly."""

    kubeconfig: Path
    images: Images
    prefix: Sequence[str] = ()
    node: Node | None = None

    def environment(self) -> dict[str, str]:
        folders = [str(Path(sys.executable).parent), *(str(binary(name).parent) for name in ("kubectl", "helm"))]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {**kept, "KUBECONFIG": str(self.kubeconfig), "PATH": os.pathsep.join([*folders, os.environ["PATH"]]), "COLUMNS": "120"}

    def run(self, *words: str, stdin: str = "", check: bool = True, timeout: float = 600) -> Done:
        """A command as typed in the repository's root. A failure raises AssertionError with what it said, unless `check` is off."""
        done = subprocess.run(
            [*self.prefix, *words],
            cwd=ROOT,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """The same, beside the test; its standard output is a pipe."""
        return subprocess.Popen([*self.prefix, *words], cwd=ROOT, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def kubectl(self, *words: str, stdin: str = "", check: bool = True, timeout: float = 600) -> Done:
        return self.run("kubectl", *words, stdin=stdin, check=check, timeout=timeout)

    def apply(self, *objects: Object) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str) -> Object:
        """An object, empty when there is none."""
        shown = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found").stdout
        found: Object = json.loads(shown or "{}")
        return found

    def items(self, kind: str, namespace: str, labels: str = "") -> list[Object]:
        shown = self.kubectl("get", kind, "-n", namespace, "-o", "json", *(["-l", labels] if labels else [])).stdout
        found: list[Object] = json.loads(shown)["items"]
        return found

    def until(self, what: str, there: Callable[[], Any], seconds: float, every: float = 0.5) -> Any:
        """What `there` returns as soon as it is true. AssertionError with `what` when it is not in time."""
        deadline = time.monotonic() + seconds
        while not (found := there()):
            assert time.monotonic() < deadline, f"{what} did not come within {seconds:.0f} s"
            time.sleep(every)
        return found
