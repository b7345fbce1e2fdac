"""A trainer's life as far as checkpoints see it, in a process of its own: begin, resume, then save and retain for ever; says what it did.

writer.py <uri> <folder for its files>
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, Fenced, files_below, open_store


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main(uri: str, folder: Path) -> None:
    checkpoints = Checkpoints(open_store(uri), keep=Keep(last=3))
    attempt, newest = checkpoints.begin(), checkpoints.newest()
    step = newest.step if newest else 0
    say("began", attempt, step)
    while True:
        step += 1
        prefix, digests = checkpoints.prefix(step, attempt), []
        for rank in range(2):
            folder.mkdir(exist_ok=True)
            (folder / "model.pt").write_bytes(f"model {step} {rank} {attempt} ".encode() * 2000)
            digests.append(checkpoints.put_shard(prefix, rank, files_below(folder)))
        checkpoints.commit(prefix, attempt=attempt, step=step, samples=step, digests=digests, metadata={}, metrics={})
        say("committed", prefix)
        checkpoints.retain()


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except Fenced as error:
        say("fenced", error.line())
