"""A process that imports what training needs while Ray starts, and becomes a worker, by a fork, whenever one is asked for.

    python -m trainjobs.workers.ray_train.forks SOCKET [--gpus]

A worker that starts by itself imports torch and DeepSpeed for three seconds of a processor and 300 MB; a fork has them already. It imports
Ray itself, which reads the environment of its worker while it is imported. A fork is
sound as long as the process has one thread and no GPU is open in it, which is looked at before the first fork; where it is not, whoever
asks is left alone and starts by itself. A fork dies with this process, and with the launcher (launcher.py) that asked for it.

    launcher -> here    the length of the order (8 bytes) with files 0, 1 and 2; the order: JSON of argv, environ and cwd
    here -> launcher    the exit status, when the fork has ended; nothing where there is none
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import runpy
import selectors
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainjobs.workers.process import die_with_parent
from trainjobs.workers.ray_train.unneeded import without_types

MODULES = ("trainjobs.loop", "trainjobs.workers.worker", "torch._dynamo", "tensorboardX", "tensorboardX.proto.event_pb2")
THEIRS = "trainjobs.workers.ray_train.local"
SOUND = ("jemalloc_bg_thd",)  # pyarrow's allocator, which starts another in a fork


@dataclass(frozen=True)
class Order:
    argv: Sequence[str]
    environ: dict[str, str]
    cwd: str
    files: Sequence[int]


def main(arguments: Sequence[str]) -> None:
    path = Path(arguments[0])
    die_with_parent()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    order = None
    try:
        accelerator(gpus="--gpus" in arguments)
        for name in MODULES:
            importlib.import_module(name)
        if why := unfit():
            print(f"workers start by themselves: {why}", flush=True)
            return
        order = serve(listener)
    finally:
        if order is None:  # not in a fork
            listener.close()
            shutil.rmtree(path.parent, ignore_errors=True)
    become(order)


def accelerator(*, gpus: bool) -> None:
    """What DeepSpeed, which asks once, when it is imported, is told. To look for GPUs by CUDA's own way would open them."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    os.environ.setdefault("DS_ACCELERATOR", "cuda" if gpus and torch.cuda.is_available() else "cpu")


def unfit() -> str:
    """Why this process must not be forked, "" where it may be."""
    names = [Path(f"/proc/self/task/{number}/comm").read_text().strip() for number in os.listdir("/proc/self/task")]
    if more := [name for name in names[1:] if name not in SOUND]:
        return f"beside its own the threads {', '.join(more)} run"
    opened = [name for name in files() if name.startswith("/dev/nvidia")]
    return f"{opened[0]} is open" if opened else ""


def files() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{number}")


def serve(listener: socket.socket) -> Order:
    """Fork whenever somebody asks; returns in the fork."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    pids: dict[socket.socket, int] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                line, _ = listener.accept()
                if (made := forked(line)) is None:
                    line.close()
                    continue
                pid, order = made
                if not pid:
                    line.close()
                    shut(selector)
                    return order
                for file in order.files:
                    os.close(file)
                pids[line] = pid
                selector.register(line, selectors.EVENT_READ)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, line)
            elif key.data is None:  # a launcher has ended, or been ended
                line = key.fileobj  # type: ignore[assignment]
                if line in pids:
                    os.kill(pids[line], signal.SIGKILL)
                    selector.unregister(line)
            else:
                line, pidfd = key.data, int(key.fd)
                selector.unregister(pidfd)
                os.close(pidfd)
                status = os.waitstatus_to_exitcode(os.waitpid(pids.pop(line), 0)[1])
                with contextlib.suppress(KeyError):
                    selector.unregister(line)
                with contextlib.suppress(OSError):
                    line.sendall(str(status).encode())
                line.close()


def forked(line: socket.socket) -> tuple[int, Order] | None:
    """A fork for whoever asks on this line: its process id, 0 in the fork itself, and what it is to run. None where that cannot be."""
    try:
        order = received(line)
        return None if order is None else (os.fork(), order)
    except (OSError, EOFError, ValueError):
        return None


def received(line: socket.socket) -> Order | None:
    head, files, _, _ = socket.recv_fds(line, 8, 3)
    length, data = int.from_bytes(head, "little"), b""
    while len(data) < length:
        part = line.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    told: dict[str, Any] = json.loads(data)
    return Order(told["argv"], told["environ"], told["cwd"], files) if len(files) == 3 else None


def shut(selector: selectors.BaseSelector) -> None:
    """In a fork: what belongs to the process that it comes from."""
    for key in list(selector.get_map().values()):
        os.close(key.fd) if isinstance(key.fileobj, int) else key.fileobj.close()  # type: ignore[attr-defined]
        if isinstance(key.data, socket.socket):
            key.data.close()
    selector.close()


def become(order: Order) -> None:
    """The program of an order, in this process."""
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, file in enumerate(order.files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(order.environ)
    os.chdir(order.cwd)
    sys.argv = list(order.argv)
    random.seed()  # forks would draw the same
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    with without_types():
        importlib.import_module(THEIRS)
    runpy.run_path(order.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
