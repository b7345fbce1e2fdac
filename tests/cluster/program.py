"""A program of somebody else's at work beside a control plane, as an ordinary process that ends with the test run."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.control_plane import START_TIMEOUT, _die_with_parent


class Program:
    """What it says goes to NAME.log in `folder`, where it runs. Killed, it can be started again."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str | Path], **environment: str) -> None:
        with open(self._folder / f"{self._name}.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env={**os.environ, **environment}, preexec_fn=_die_with_parent
            )

    def wait_until_ready(self, port: int) -> None:
        """Until its /readyz answers on that port of this machine. RuntimeError with its last words where it does not."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                    return
            except (urllib.error.URLError, OSError) as error:
                if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self._name} did not come up: {self.last_words()}") from error
            time.sleep(0.05)

    def last_words(self) -> str:
        return (self._folder / f"{self._name}.log").read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
