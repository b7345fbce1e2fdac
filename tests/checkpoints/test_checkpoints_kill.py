"""kill -9 of real processes: at every system call in turn, and at any moment, with a second writer beside."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from second_reader import View, check, load

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, files_below, open_store

WRITER = Path(__file__).with_name("killed_writer.py")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def start(mode: str, folder: Path, output: Path) -> subprocess.Popen[bytes]:
    with open(output, "ab") as opened:
        return subprocess.Popen([sys.executable, str(WRITER), mode, str(folder)], stdout=opened, env={"PYTHONPATH": str(ROOT), "PATH": ""})


def reported(output: Path) -> list[str]:
    return [line.split()[1] for line in output.read_text().splitlines() if line.startswith("committed ")]


def look(root: Path) -> View:
    view = check(load(root), keep_last=2)
    assert len(view.live) >= 1
    return view


def goes_on(root: Path, stage: Path, view: View) -> None:
    """A new attempt resumes from the newest commit, saves, and leaves nothing that is not in use."""
    checkpoints = Checkpoints(open_store(f"file://{root}"), keep=Keep(last=2))
    attempt, newest = checkpoints.begin(), checkpoints.newest()
    assert newest is not None
    assert newest.prefix == view.prefixes[-1]
    checkpoints.verify(newest)
    stage.mkdir(exist_ok=True)
    (stage / "a").write_bytes(b"a")
    prefix = checkpoints.prefix(newest.step + 1, attempt)
    told = checkpoints.put_shard(prefix, 0, files_below(stage))
    checkpoints.commit(prefix, attempt=attempt, step=newest.step + 1, samples=0, digests=[told], metadata={}, metrics={})
    checkpoints.retain()
    view = look(root)
    assert sorted(path.name for path in (root / "steps").iterdir()) == sorted(prefix.removeprefix("steps/") for prefix in view.prefixes)
    assert not list((root / "steps").rglob(".tmp-*"))


def test_killed_at_every_system_call(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert start("sweep", tmp_path / "runs", tmp_path / "out").wait(timeout=300) == 0
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines[-1].split()[0] == "finished"
    assert lines[-1].split()[2] == "0"
    starts = [at for at, line in enumerate(lines) if line.startswith("target ")]
    assert len(starts) > 100, "the sweep met too few system calls to mean anything"
    for at, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        folder = Path(lines[at].split()[1])
        told = [line.split()[1] for line in lines[at:end] if line.startswith("committed ")]
        view = look(folder / "store")
        committed = [record["body"]["prefix"] for record in view.commits.values()]
        assert set(told) <= set(committed), f"{folder.name}: a reported commit is lost"
        assert len(committed) - len(told) <= 1
        goes_on(folder / "store", folder / "stage", view)


def seconds_to_begin(folder: Path, output: Path) -> float:
    """That a writer takes from its start to its first word, on this machine, now."""
    started = time.monotonic()
    writer = start("loop", folder, output)
    while "began" not in output.read_text():
        assert writer.poll() is None
        assert time.monotonic() < started + 60
        time.sleep(0.01)
    took = time.monotonic() - started
    writer.kill()
    writer.wait()
    return took


def test_killed_at_any_moment_with_a_second_writer(tmp_path: Path) -> None:
    """Rounds of one or two writers on the same folder, until one was fenced by the second at least. Both are killed."""
    chance = random.Random(4)
    (tmp_path / "run").mkdir()
    root, output, rounds = tmp_path / "run" / "store", tmp_path / "out", 20
    alone = seconds_to_begin(tmp_path / "run", output)
    attempts, number = 0, 0
    while number < rounds or "fenced" not in output.read_text():
        assert number < 10 * rounds, "the first writer was always killed before the second began"
        writers = [start("loop", tmp_path / "run", output) for _ in range(1 + number % 2)]
        for writer in writers:
            try:
                writer.wait(timeout=alone * len(writers) + chance.uniform(-0.1, 0.5))
            except subprocess.TimeoutExpired:
                writer.kill()
        for writer in writers:
            writer.wait()
        number += 1
        if not root.exists():
            continue
        view = check(load(root), keep_last=2)
        assert set(reported(output)) <= {record["body"]["prefix"] for record in view.commits.values()}
        assert view.attempt >= attempts
        attempts = view.attempt
    assert attempts >= rounds // 2, "the writers were killed before they began"
    goes_on(root, tmp_path / "stage", look(root))
