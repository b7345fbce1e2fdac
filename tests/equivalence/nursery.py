"""Processes that begin with what training imports already imported: forks of one process for each rank, which itself does nothing else.

These imports take four seconds of a core, and the tests start a hundred such processes. A fork is a process of its own, into which nothing
that was ever trained comes. Each rank has its own nursery, so the ranks' sets have different orders, as those of separate processes have.

Run as a program it is the nursery: it reads a line of JSON for each process that is to be, answers with its pid, and with its exit status
when it has ended.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

IMPORTED = (
    "deepspeed",
    "torch._dynamo",  # with an optimizer of torch
    "transformers.models.gpt2.modeling_gpt2",
    "tensorboardX.proto.event_pb2",
    "trainjobs.loop",
    "trainjobs.engine.engine",
    "trainjobs.objectives.build",
    "tests.checkpointer.at_once",
)


class Nursery:
    """The way to the program, for one rank. One process at a time: `start`, then `wait`, and `kill` in between."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        atexit.register(self._process.kill)
        self._asked, self._pid, self._status = False, 0, 0

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """A file of Python and its arguments, in this environment, writing to `log`. Does not wait until it runs."""
        assert not self._asked
        assert self._process.stdin is not None
        request = {"command": list(command), "environment": dict(environment), "log": str(log), "folder": os.getcwd()}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._asked = True

    def wait(self, timeout: float) -> int:
        """Its exit status, or minus the signal that ended it. Raises TimeoutError."""
        if self._asked:
            self._pid = self._pid or self._answer(timeout)
            self._status = self._answer(timeout)
            self._asked, self._pid = False, 0
        return self._status

    def kill(self) -> None:
        if self._asked:
            self._pid = self._pid or self._answer(60.0)
            with suppress(ProcessLookupError):  # it has ended, which nobody has asked for yet
                os.kill(self._pid, signal.SIGKILL)

    def _answer(self, timeout: float) -> int:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise TimeoutError(f"no word for {timeout:g} s")
        return int(self._process.stdout.readline())  # unbuffered: what is there to read is what `select` sees


NURSERIES: dict[int, Nursery] = {}


def fork(rank: int, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Nursery:
    """Started in the nursery of its rank, which begins with the first of them."""
    if rank not in NURSERIES:
        NURSERIES[rank] = Nursery(environment)
    NURSERIES[rank].start(command, environment, log)
    return NURSERIES[rank]


def become(request: dict[str, Any]) -> None:
    """This process is from now on that of the request. Never returns."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(ours, theirs)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    script = request["command"][0]
    sys.argv, sys.path[0] = request["command"], str(Path(script).parent)
    status = 1
    try:
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as error:
        print(error.code if isinstance(error.code, str) else "", end="", file=sys.stderr)
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a thread that a fork would not have"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this by ending
    gc.freeze()
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    for line in requests:
        child = os.fork()
        if not child:
            requests.close()
            os.close(answers.fileno())
            become(json.loads(line))
        print(child, file=answers)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers)


if __name__ == "__main__":
    main()
