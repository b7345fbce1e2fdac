"""A trainer's life as far as checkpoints see it, in a process that test_kill.py starts and kills; says on stdout what it did.

killed_writer.py loop <folder>     begin, resume, save and retain for ever
killed_writer.py sweep <folder>    the same once, in children that die at their 1st, 2nd, 3rd, ... system call, each in its own folder
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, Fenced, files_below, open_store

CALLS = ("link", "replace", "fsync", "unlink", "rmdir", "mkdir", "open")


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def save(checkpoints: Checkpoints, attempt: int, step: int, stage: Path) -> None:
    prefix, digests = checkpoints.prefix(step, attempt), []
    for rank in range(2):
        (stage / "state").mkdir(parents=True, exist_ok=True)
        (stage / "model.pt").write_bytes(f"model {step} {rank} ".encode() * 2000)
        (stage / "state" / "rng.json").write_bytes(f"rng {step} {rank}".encode())
        digests.append(checkpoints.put_shard(prefix, rank, files_below(stage)))
    checkpoints.commit(prefix, attempt=attempt, step=step, samples=step, digests=digests, metadata={"pid": os.getpid()}, metrics={})
    say("committed", prefix)


def run(folder: Path, steps: int | None) -> None:
    checkpoints = Checkpoints(open_store(f"file://{folder}/store"), keep=Keep(last=2))
    stage = folder / f"stage-{os.getpid()}"
    attempt = checkpoints.begin()
    newest = checkpoints.newest()
    if newest is not None:
        checkpoints.fetch(newest, range(newest.world), stage / "back")
    step = newest.step if newest is not None else 0
    say("began", attempt, step)
    while steps is None or steps > 0:
        step += 1
        save(checkpoints, attempt, step, stage / "new")
        checkpoints.retain()
        steps = None if steps is None else steps - 1


def arm(fatal: int) -> None:
    """Kill this process before its `fatal`-th call of CALLS."""
    left = [fatal]

    def armed(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, armed(getattr(os, name)))
    builtins.open = armed(builtins.open)  # type: ignore[assignment]


def sweep(folder: Path) -> None:
    for fatal in range(1, 1000):
        child = os.fork()
        if child == 0:
            target = folder / str(fatal)
            target.mkdir()
            say("target", target)
            run(target, 2)
            arm(fatal)
            run(target, 1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            say("finished", fatal, os.waitstatus_to_exitcode(status))
            return


if __name__ == "__main__":
    mode, where = sys.argv[1], Path(sys.argv[2])
    try:
        sweep(where) if mode == "sweep" else run(where, None)
    except Fenced:
        say("fenced")
