"""Files derived from the data: made once, whole or not at all, whoever asks first."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from trainjobs.api.errors import JobError


def cached(path: Path, write: Callable[[BinaryIO], None]) -> Path:
    """`path`, after `write` has filled it if it did not exist.

    Several processes may ask at once: one writes, the others wait for it. Where the file system has no locks they may write the same
    thing twice, each into a file of its own; the rename is atomic, so a reader never sees half a file. The name must change with the
    contents. JobError GTJ0114 when the folder cannot be written.
    """
    if path.exists():
        return path
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".lock").open("wb") as lock:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)  # released by a kill, too
            try:
                if path.exists():
                    return path
                with partial.open("wb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            finally:
                # Not by closing it: a process that was forked meanwhile, by any thread, has the file open as well, and others would wait
                # for its end.
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_UN)
    except OSError as error:
        # `write` turns errors of reading the data into JobErrors itself.
        raise JobError(
            "GTJ0114",
            "what is derived from the data cannot be written",
            where=str(error.filename or path),
            why=error.strerror or str(error),
            how="free space there, or choose another run folder",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path
