"""Saves until the disk refuses, in a process of its own, and looks what is left. Exit status 0: all held.

Started by test_checkpoints_full_disk.py:

full_disk_writer.py <store> <stage> <bytes per save> <words the refusal must hold> [<limit on the size of a stored file>]
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from second_reader import check, load

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, files_below, open_store


def save(checkpoints: Checkpoints, attempt: int, step: int, stage: Path, size: int, limit: int) -> None:
    stage.mkdir(exist_ok=True)
    (stage / "small").write_bytes(b"small")
    with open(stage / "zbig", "wb") as file:
        file.truncate(size)  # sparse: the stage itself needs no space, so that it is the store that runs out
    prefix = checkpoints.prefix(step, attempt)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # Python ignores SIGXFSZ: the write fails with EFBIG
    try:
        told = checkpoints.put_shard(prefix, 0, files_below(stage))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    checkpoints.commit(prefix, attempt=attempt, step=step, samples=0, digests=[told], metadata={}, metrics={})


def main(root: Path, stage: Path, size: int, words: str, limit: int) -> None:
    checkpoints = Checkpoints(open_store(f"file://{root}"), keep=Keep(last=1))
    attempt = checkpoints.begin()
    save(checkpoints, attempt, 1, stage, 1000, limit)
    for step in range(2, 100):
        try:
            save(checkpoints, attempt, step, stage, size, limit)
        except JobError as error:
            refusal = error
            break
    else:
        raise AssertionError("the disk was never full")
    assert refusal.code == "GTJ0211", refusal
    assert words in refusal.why, refusal
    view = check(load(root))
    assert view.steps == list(range(1, step)), view.steps
    assert not list(root.rglob(".tmp-*")), "the refused upload is in the way"
    assert sorted(os.listdir(stage)) == ["small", "zbig"], "the shard is lost"
    newest = checkpoints.newest()
    assert newest is not None
    checkpoints.verify(newest)
    if step > 2:  # retention makes room, and the same attempt goes on
        checkpoints.retain()
        shutil.rmtree(stage)
        save(checkpoints, attempt, step + 1, stage, size, limit)
        assert check(load(root)).steps == [step - 1, step + 1]


if __name__ == "__main__":
    most = int(sys.argv[5]) if len(sys.argv) > 5 else resource.RLIM_INFINITY
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], most)
