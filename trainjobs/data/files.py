"""Where the data lies: from a URI to the files it names.

A relative path (file://./faces, file://faces) is resolved against the current directory of the process that reads it. What follows
file:// is the path as it stands: no host, no %-escapes, no ~.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainjobs.api.errors import JobError

_READABLE = "this version reads file:// and builtin:"


@dataclass(frozen=True)
class File:
    path: Path
    name: str  # relative to the folder, with "/"
    size: int  # bytes
    modified: int  # nanoseconds since 1970


def locate(source: str) -> Path:
    """The absolute path a file:// URI names; JobError GTJ0107 for other schemes, GTJ0113 when nothing is there."""
    scheme, _, rest = source.partition("://")
    if scheme != "file":
        raise JobError(
            "GTJ0107",
            f"data.source {source} cannot be read",
            why=_READABLE,
            how="copy the data to a local folder, or mount it, and name that",
        )
    path = Path(rest).absolute()
    try:
        path.stat()
    except FileNotFoundError:
        raise JobError(
            "GTJ0113", "the data does not exist", where=str(path), why=_nearest(path), how="mend data.source, or put the data there"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error
    return path


def listing(path: Path, suffixes: Sequence[str], noun: str) -> tuple[File, ...]:
    """The files under `path` (or `path` itself) that end in one of `suffixes`, in the order of their names; at least one.

    Subfolders are searched, links are followed, names that begin with a dot are left out. JobError GTJ0113 when there is none: it says
    what is there instead.
    """
    if not path.is_dir():
        if path.suffix.lower() not in suffixes:
            raise JobError(
                "GTJ0113",
                f"{path.name} is no file of {noun}",
                where=str(path),
                why=f"known are {' '.join(suffixes)}",
                how="name another file",
            )
        return (file_at(path, path.name),)
    names = _walk(path)
    if not names:
        raise JobError("GTJ0113", "the folder is empty", where=str(path), how=f"put {noun} there, or mend data.source")
    files = tuple(file_at(path / name, name) for name in names if Path(name).suffix.lower() in suffixes)
    if not files:
        counts = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
        found = ", ".join(f"{count} × {suffix}" for suffix, count in counts.most_common(5))
        raise JobError(
            "GTJ0113", f"the folder holds no {noun}", where=str(path), why=f"found {found}", how=f"known are {' '.join(suffixes)}"
        )
    return files


def fingerprint(files: Sequence[File], **settings: object) -> str:
    """16 hexadecimal digits that change with the names, sizes and times of the files, and with the settings they are read by."""
    rows = [[file.name, file.size, file.modified] for file in files]
    return hashlib.sha256(json.dumps([rows, settings], sort_keys=True).encode()).hexdigest()[:16]


def unreadable(path: Path, error: OSError) -> JobError:
    """The error for a file or folder that the system refuses to read."""
    how = "give the user who trains permission to read it" if isinstance(error, PermissionError) else "check the file and the disk"
    return JobError("GTJ0113", "the data cannot be read", where=str(error.filename or path), why=error.strerror or str(error), how=how)


def megabytes(count: int) -> str:
    """Bytes, for people: "3.9 MB", "412 bytes"."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count:,} bytes"


def file_at(path: Path, name: str) -> File:
    """The file as it is now; JobError GTJ0113 when it cannot be looked at."""
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return File(path, name, status.st_size, status.st_mtime_ns)


def _walk(top: Path) -> list[str]:
    def refuse(error: OSError) -> None:
        raise unreadable(top, error) from error

    names: list[str] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(top, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [Path(folder, name).relative_to(top).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def _nearest(path: Path) -> str:
    """What does exist: the last existing folder above, and what it holds."""
    parent = next(parent for parent in path.parents if parent.exists())
    try:
        names = sorted(name for name in os.listdir(parent) if not name.startswith("."))
    except OSError:
        names = []
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{parent} holds {shown}" if shown else f"{parent} exists and is empty"
