"""Two real processes on one prefix: the older one is stopped, replaced, woken, and refused."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from second_reader import check, load

from tests.stores.servers import Service

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WRITER = Path(__file__).with_name("writer.py")
ASLEEP = float(os.environ.get("GENTRAIN_STOPPED_SECONDS", "0"))  # how long the older one is left stopped, beyond what the other needs


class Process:
    def __init__(self, uri: str, folder: Path, environ: dict[str, str]) -> None:
        environment = {**os.environ, **environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(WRITER), uri, str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        self.said: list[str] = []

    def until(self, word: str, times: int = 1) -> None:
        """Read what it says until it has said `word` so often from now on."""
        assert self.process.stdout is not None
        while times:
            line = self.process.stdout.readline()
            assert line, f"it ended, having said {self.said[-5:]}"
            self.said.append(line.strip())
            times -= line.startswith(word)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize("place", ["file", "moto", "versitygw", "fake-gcs-server", "azurite"])
def test_a_stopped_process_wakes_up_behind_the_fence(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if place == "file":
        uri, environ = f"file://{tmp_path}/root", {}
        objects = lambda: load(tmp_path / "root")  # noqa: E731
    else:
        server: Service = request.getfixturevalue("start")(place)
        uri, environ = server.fresh(), server.environ()
        objects = lambda: server.load(uri)  # noqa: E731
    old = new = None
    try:
        old = Process(uri, tmp_path / "old", environ)
        old.until("committed", 2)
        time.sleep(random.uniform(0, 0.1))  # anywhere within a save
        old.process.send_signal(signal.SIGSTOP)
        new = Process(uri, tmp_path / "new", environ)
        new.until("committed", 2)
        assert new.said[0].startswith("began 2 ")
        time.sleep(ASLEEP)
        old.process.send_signal(signal.SIGCONT)
        old.until("fenced")
        assert "attempt 1 of this run has been replaced" in old.said[-1]
        assert old.process.wait(timeout=60) == 0
        new.until("committed", 2)
        new.end()
        view = check(objects(), keep_last=3)
        attempts = [record["attempt"] for record in view.commits.values()]
        assert attempts == sorted(attempts)
        told = {line.split()[1] for process in (old, new) for line in process.said if line.startswith("committed")}
        assert told <= {record["body"]["prefix"] for record in view.commits.values()}, "a commit that was reported is lost"
    finally:
        for process in (old, new):
            if process is not None:
                process.end()
