"""Where the data lies: from a URI to the files it names.

A relative path (file://./faces, file://faces) is resolved against the current directory of the process that reads it. What follows
file:// is a path with %-escapes (RFC 8089), no host and no ~.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainjobs.api.errors import JobError, printable
from trainjobs.api.uris import file_path, file_uri
from trainjobs.data.tree import unreadable as unreadable


@dataclass(frozen=True)
class File:
    path: Path
    name: str  # relative to the folder, with "/"
    size: int  # bytes
    modified: int  # nanoseconds since 1970


@dataclass(frozen=True)
class Listing:
    """`files`, and what lies beside them and is left out, as counts: files by suffix or kind, folders by name, links back."""

    files: tuple[File, ...]
    others: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    loops: int = 0

    def words(self) -> Iterator[str]:
        """What was left out, for the line that says what was found: "2 .avif, 1 pipe left out"."""
        if self.others:
            yield f"{', '.join(f'{count} {name}' for name, count in most(self.others, 'of other kinds'))} left out"
        if self.folders:
            names = [f"{count} × {name}" if count > 1 else name for name, count in most(self.folders, "of other names")]
            yield f"folder{'s' if self.folders.total() > 1 else ''} {', '.join(names)} left out"
        if self.loops:
            yield f"{self.loops} link{'s' if self.loops > 1 else ''} back to a folder above left out"


def locate(source: str) -> Path:
    """The absolute path a file:// URI names; JobError GTJ0107 for what no path can be like, GTJ0113 when nothing is there."""
    rest = source.removeprefix("file://")
    path = Path(file_path(source)).absolute()
    try:
        path.stat()
    except FileNotFoundError:
        how = "mend data.source, or put the data there"
        if Path(rest).exists():
            how = f"a % in a name is written %25: {file_uri(rest)}"
        elif "~" in path.parts:
            how = f"~ is not expanded in a URI, write the folder's whole path: {file_uri(os.path.expanduser('~'))}/..."
        raise JobError("GTJ0113", "the data does not exist", where=str(path), why=_nearest(path), how=how) from None
    except ValueError as error:  # a NUL
        raise JobError("GTJ0107", "no path can be like this", where=source, why=str(error), how="mend data.source") from None
    except OSError as error:
        raise unreadable(path, error) from error
    return path


def most(counts: Counter[str], rest: str) -> list[tuple[str, int]]:
    """The five names that are counted most, the first of equals first, fit to be shown; and all others together as `rest`."""
    ranked = counts.most_common()
    shown = [(printable(name if len(name) <= 40 else f"{name[:40]}..."), count) for name, count in ranked[:5]]
    others = sum(count for _, count in ranked[5:])
    return [*shown, (rest, others)] if others else shown


def fingerprint(files: Sequence[File], **settings: object) -> str:
    """16 hexadecimal digits that change with the names, sizes and times of the files, and with the settings they are read by."""
    return fingerprinted([[file.name, file.size, file.modified] for file in files], **settings)


def fingerprinted(of: object, **settings: object) -> str:
    """16 hexadecimal digits of what JSON can hold."""
    return hashlib.sha256(json.dumps([of, settings], sort_keys=True).encode()).hexdigest()[:16]


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


def _nearest(path: Path) -> str:
    """What does exist: the last existing folder above, and what it holds."""
    parent = next(parent for parent in path.parents if parent.exists())
    try:
        names = sorted(name for name in os.listdir(parent) if not name.startswith("."))
    except OSError:
        names = []
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{parent} holds {shown}" if shown else f"{parent} exists and is empty"
