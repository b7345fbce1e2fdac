"""What the raylet starts in place of a worker: asks for a fork (forks.py), lives as long as it does, and ends as it ends.

A script of the standard library alone, so that it costs 20 ms; in whatever it cannot do it becomes what Ray would have started.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

LINE = "GENTRAIN_FORKS"  # the socket at which forks are asked for
SETUP = "setup_worker"  # Ray's own script, beside the worker's
CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="  # of a worker that needs no more than this a fork is one


def main(arguments: list[str]) -> None:
    argv = [each for each in arguments if not each.startswith((CONTEXT, LANGUAGE))]
    kind = {each for each in arguments if each not in argv}
    plain = kind <= {CONTEXT, f"{CONTEXT}{{}}", f"{LANGUAGE}PYTHON"} and argv[0].endswith(".py")
    if plain and (status := forked(os.environ.get(LINE, ""), argv)) is not None:
        leave(status)
    worker = next(each for each in argv if each.endswith(".py"))
    setup = os.path.join(os.path.dirname(worker), f"{SETUP}.py")
    os.execv(sys.executable, [sys.executable, setup, *arguments])


def forked(line: str, argv: list[str]) -> int | None:
    """The exit status of a fork that ran this, negative for a signal; None where there is nobody to fork."""
    order = json.dumps({"argv": argv, "environ": dict(os.environ), "cwd": os.getcwd()}).encode()
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(line)
            socket.send_fds(asked, [len(order).to_bytes(8, "little")], [0, 1, 2])
            asked.sendall(order)
            answer = asked.makefile("rb").read()  # until it ends
        except OSError:
            return None
    return int(answer) if answer else None


def leave(status: int) -> None:
    if status < 0:
        with contextlib.suppress(OSError):  # of SIGKILL nobody can say more
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1:])
