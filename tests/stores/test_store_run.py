"""`gtj run` with its checkpoints on S3, as a user has it: killed, run again, listed, verified, fetched."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from second_reader import check

from tests.stores.servers import Start

pytestmark = pytest.mark.slow
SHELL = importlib.util.spec_from_file_location("shell", Path(__file__).parents[1] / "e2e_local" / "shell.py")
assert SHELL is not None
assert SHELL.loader is not None
shell = importlib.util.module_from_spec(SHELL)
SHELL.loader.exec_module(shell)


def test_a_run_on_s3_is_killed_and_goes_on(start: Start, tmp_path: Path) -> None:
    server = start("moto")
    at = shell.Shell(tmp_path)
    at.environment |= server.environ()
    uri = server.fresh()
    steps = {**shell.SPEC["training"], "steps": 2000}
    at.manifest(checkpoints={"uri": uri, "every": {"steps": 20}, "keep": {"last": 2}}, evaluation=None, training=steps)
    command = [sys.executable, "-m", "trainjobs.cli.main", "run", "-f", "job.yaml", "--run-dir", "run", "--no-ray"]
    with open(tmp_path / "first.log", "wb") as log:
        first = subprocess.Popen(command, cwd=tmp_path, env=at.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        place = f"{uri}/job"
        ends = time.monotonic() + 240
        while len([key for key in server.keys(uri) if key.startswith("job/log/")]) < 3:  # fence, commit, commit
            assert first.poll() is None, (tmp_path / "first.log").read_text()
            assert time.monotonic() < ends
            time.sleep(0.1)
        everybody = [
            psutil.Process(first.pid),
            *psutil.Process(first.pid).children(recursive=True),
        ]
        for process in everybody:
            process.kill()
        first.wait()
        psutil.wait_procs(everybody, timeout=60)
        objects = {key.removeprefix("job/"): data for key, data in server.load(uri).items()}
        reached = check(objects, keep_last=2).steps[-1]
        assert reached < 2000, "it was too quick to be killed"

        at.manifest(
            checkpoints={"uri": uri, "every": {"steps": 20}, "keep": {"last": 2}},
            evaluation=None,
            training={**steps, "steps": reached + 10},
        )
        done = at.train()
        assert done.returncode == 0, done.stderr
        objects = {key.removeprefix("job/"): data for key, data in server.load(uri).items()}
        view = check(objects, keep_last=2)
        assert view.attempt == 2
        assert view.steps[-1] == reached + 10
        again = [record["body"]["step"] for record in view.commits.values() if record["attempt"] == 2]
        assert min(again) > reached, "it began again instead of going on"
        assert {"/".join(key.split("/")[:2]) for key in objects if key.startswith("steps/")} == set(view.prefixes)
    finally:
        if first.poll() is None:
            first.kill()
            first.wait()

    listed = json.loads(at.gtj("checkpoints", "ls", place, "-o", "json").stdout)
    assert [row["step"] for row in listed if row["state"] == "live"] == view.steps
    assert at.gtj("checkpoints", "verify", place).stdout.count("whole") == 2
    pulled = at.gtj("checkpoints", "pull", place, tmp_path / "copy")
    assert pulled.stdout.startswith(f"step {reached + 10} ")
    for path in (tmp_path / "copy").rglob("*.safetensors"):
        name = path.relative_to(tmp_path / "copy").as_posix()
        assert path.read_bytes() == objects[f"{view.prefixes[-1]}/{name}"]
    victim = next(key for key in objects if key.startswith(view.prefixes[-1]) and key.endswith(".safetensors"))
    server.write(uri, f"job/{victim}", b"\0" + objects[victim][1:])
    found = at.gtj("checkpoints", "verify", place)
    assert found.returncode == 5
    assert victim in found.stdout
    shell.refused(at.gtj("checkpoints", "pull", place, tmp_path / "copy"), "GTJ0209", 5, victim)
