"""A process beside each worker that hashes, uploads and commits what the worker has copied, so that training does neither.

It imports no torch, runs at a lower priority, and ends with its worker. Requests are answered one after the other; the worker asks for the
answer when it suits it. Open files travel with the request: what is uploaded has no name in any folder.

    worker -> uploader    ("upload", prefix, rank, {name: file}, texts, attempt)    answer: the digest of the rank's manifest
    worker -> uploader    ("commit", prefix, arguments of Checkpoints.commit)       answer: the Commit; then old checkpoints are deleted
    worker -> uploader    ("end")                                                   no answer
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, open_store
from trainjobs.checkpoints.tensors import INDEX
from trainjobs.engine.memory import keep_freed_memory, nameless

NICE = 10


class Uploader:
    """The worker's side. The process is started by the first request."""

    def __init__(self, uri: str, keep: Keep) -> None:
        self._uri, self._keep = uri, keep
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None
        self._sent: dict[int, int] = {}  # inodes by descriptor: files that the uploader has
        self._asked = False

    def upload(
        self, prefix: str, rank: int, attempt: int, files: Mapping[str, int], index: bytes, *, beside: Mapping[str, bytes] | None = None
    ) -> None:
        """Ask for an upload of open files, which must not change until the answer is there, of their index, and of small files `beside`."""
        line = self._open()  # first: a new one has no file yet
        for descriptor in [known for known in self._sent if known not in files.values()]:
            del self._sent[descriptor]
        fresh = [name for name, descriptor in files.items() if self._sent.get(descriptor) != os.fstat(descriptor).st_ino]
        self._ask("upload", (prefix, rank, list(files), fresh, {**(beside or {}), INDEX: index}, attempt))
        with suppress(OSError):  # it has died this very moment: the answer says so
            for name in fresh:
                send_handle(line, files[name], self._pid())
                self._sent[files[name]] = os.fstat(files[name]).st_ino

    def commit(self, prefix: str, arguments: Mapping[str, Any]) -> None:
        """Ask for a commit, by the arguments of Checkpoints.commit."""
        self._ask("commit", (prefix, dict(arguments)))

    def ready(self) -> bool:
        """Whether `answer` would return at once."""
        return self._asked and self._open().poll()

    def answer(self) -> Any:
        """Wait for the answer to the last request. An error is a value. JobError GTJ0211 for a uploader that has died."""
        try:
            return self._open().recv()
        except (EOFError, OSError):
            status = self._process.wait() if self._process else None
            why, how = f"the process that uploads them has ended with status {status}", "see the worker's log; memory is the usual cause"
            self._line, self._process, self._sent = None, None, {}
            return JobError("GTJ0211", "a checkpoint was not written", why=why, how=how)
        finally:
            self._asked = False

    def close(self, patience: float = 60.0) -> None:
        """End the process when it has done what it was asked to, or after `patience` seconds."""
        if self._process is not None and self._line is not None:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._line.send(("end", ()))
                self._process.wait(patience)
            self._line.close()  # it ends amid whatever it does
            self._process.wait()
        self._line, self._process, self._sent, self._asked = None, None, {}, False

    def _ask(self, verb: str, arguments: tuple[Any, ...]) -> None:
        assert not self._asked, "the answer to the last request was not fetched"
        self._asked = True
        with suppress(OSError):  # it has died this very moment: the answer says so
            self._open().send((verb, arguments))

    def _open(self) -> Connection:
        if not self._asked and self._process is not None and self._process.poll() is not None:
            self._line, self._process, self._sent = None, None, {}  # it was killed while it had nothing to do
        if self._line is None:
            self._line, theirs = Pipe()
            with theirs:
                command = [
                    sys.executable,
                    "-m",
                    "trainjobs.checkpointer.uploader",
                    str(theirs.fileno()),
                    self._uri,
                    self._keep.model_dump_json(),
                ]
                self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        return self._line

    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid


def main() -> None:
    os.nice(NICE)
    keep_freed_memory()
    line, store, keep = Connection(int(sys.argv[1])), open_store(sys.argv[2]), Keep.model_validate_json(sys.argv[3])
    checkpoints, requests = Checkpoints(store, keep=keep), SimpleQueue[tuple[str, tuple[Any, ...]]]()
    threading.Thread(target=_listen, args=(line, requests), daemon=True).start()
    files: dict[str, int] = {}
    while True:
        verb, arguments = requests.get()
        if verb == "end":
            os._exit(0)  # the thread that listens is in the middle of it
        try:
            if verb == "upload":
                prefix, rank, names, fresh, texts, attempt = arguments
                for name in [known for known in files if known in fresh or known not in names]:
                    os.close(files.pop(name))
                files |= fresh
                checkpoints.join(attempt)
                line.send(_upload(checkpoints, prefix, rank, files, texts))
            else:
                prefix, told = arguments
                line.send(checkpoints.commit(prefix, **told))
                _retain(checkpoints)
        except Exception as error:
            _send(line, error)


def _listen(line: Connection, requests: SimpleQueue[tuple[str, tuple[Any, ...]]]) -> None:
    """Pass requests on, with the open files that come behind them. Without the worker nobody may commit: then this process ends."""
    try:
        while True:
            verb, arguments = line.recv()
            if verb == "upload":
                prefix, rank, names, fresh, texts, attempt = arguments
                arguments = (prefix, rank, names, {name: recv_handle(line) for name in fresh}, texts, attempt)
            requests.put((verb, arguments))
    except BaseException:
        os._exit(0)


def _upload(checkpoints: Checkpoints, prefix: str, rank: int, files: Mapping[str, int], texts: Mapping[str, bytes]) -> str:
    with ExitStack() as stack:
        opened = dict(files)
        for name, text in texts.items():
            file = stack.enter_context(open(nameless(), "w+b"))
            file.write(text)
            file.flush()
            opened[name] = file.fileno()
        return checkpoints.put_shard(prefix, rank, {name: Path(f"/dev/fd/{number}") for name, number in sorted(opened.items())})


def _retain(checkpoints: Checkpoints) -> None:
    """Delete what retention no longer keeps. What cannot be deleted now is tried again after the next commit."""
    try:
        checkpoints.retain()
    except JobError as error:  # to be fenced is one, too; the next commit says so
        print(f"retention: {error}", file=sys.stderr, flush=True)


def _send(line: Connection, error: Exception) -> None:
    try:
        line.send(error)
    except (TypeError, AttributeError, pickle.PicklingError):  # a foreign exception that does not travel
        line.send(RuntimeError(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
