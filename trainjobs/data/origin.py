"""What a run's data is, to tell whether it is still the same when the run goes on. No torch here.

Names and sizes of the files, and their contents, which cost a second a gigabyte, up to CHEAP. Not the times: a copy is the same data. The
list of files goes into every checkpoint beside the digest, up to LISTED of them, so that what was added, removed or changed can
be named; of more, only how many there were.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError, sentences
from trainjobs.data import digits, ring, shapes
from trainjobs.data.files import File, megabytes, unreadable
from trainjobs.data.found import Found
from trainjobs.data.places.place import Object

CHEAP = 256_000_000  # bytes whose contents are hashed
LISTED = 100_000
NAME = "data.json.gz"  # in a checkpoint


@dataclass(frozen=True)
class Origin:
    """`files` maps names to [size, digest of the contents or ""]; empty for what is built in and for more than LISTED. `resolved` maps
    URIs of the manifest to what they meant when the run began, where that may change: the commit of a dataset of the hub."""

    source: str
    count: int  # files; samples of what is built in
    size: int  # bytes
    digest: str
    files: Mapping[str, tuple[int, str]]
    resolved: Mapping[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """What a commit keeps of it."""
        return {"source": self.source, "count": self.count, "size": self.size, "digest": self.digest, "resolved": dict(self.resolved)}

    def listed(self) -> bytes:
        """The list of files, as bytes that are the same for the same list."""
        return gzip.compress(json.dumps(self.files, sort_keys=True).encode(), mtime=0)


def of_builtin(source: str) -> Origin:
    count = {"builtin:ring": ring.COUNT, "builtin:digits": digits.COUNT, "builtin:shapes": shapes.COUNT}[source]
    content = _content(digits.path()) if source == "builtin:digits" else ""
    return Origin(source, count, 0, _digest([source, count, content]), {})


def of_files(source: str, files: Sequence[File]) -> Origin:
    return _of(source, [Object(file.name, file.size, "", file.path) for file in files], {})


def of_found(found: Sequence[Found]) -> Origin:
    """Of several sources the names of the files begin with the number of theirs."""
    several = len(found) > 1
    objects = [
        replace(one, name=f"{number}/{name}" if several else name) for number, part in enumerate(found) for name, one in part.objects()
    ]
    resolved = {part.part.source: part.uri for part in found if part.uri != part.part.source}
    return _of(" + ".join(part.uri for part in found), objects, resolved)


def _of(source: str, objects: Sequence[Object], resolved: Mapping[str, str]) -> Origin:
    size = sum(one.size for one in objects)
    cheap = len(objects) <= LISTED and sum(one.size for one in objects if one.path) <= CHEAP
    rows = {one.name: (one.size, _tag(one) if one.path is None or cheap else "") for one in objects}
    listed = rows if len(rows) <= LISTED else {}
    return Origin(source, len(objects), size, _digest(sorted(rows.items())), listed, resolved)


def _tag(one: Object) -> str:
    """Of what is on this machine a digest of its contents; elsewhere what the store says of them, which no other kind of store would."""
    return _content(one.path) if one.path is not None else f"tag:{one.tag}"


def difference(before: Mapping[str, Any], now: Origin, listed: Callable[[], bytes | None]) -> str | None:
    """In words, what has changed of the data since `before`, a commit's own account; None when nothing has. `listed` reads the list of
    files that the commit has beside it, and is asked only then."""
    if before["digest"] == now.digest:
        return None
    packed = listed() if now.files else None
    old: dict[str, list[Any]] = json.loads(gzip.decompress(packed)) if packed else {}
    if not old:
        what = f"{before['count']} files of {megabytes(before['size'])} then, {now.count} of {megabytes(now.size)} now"
        return what if now.source == before["source"] else f"{before['source']} then, {now.source} now"
    changed = [name for name, row in now.files.items() if name in old and _differ(old[name], row)]
    parts = [
        _named("added", [name for name in now.files if name not in old]),
        _named("removed", [name for name in old if name not in now.files]),
        _named("changed", changed),
    ]
    return "; ".join(part for part in parts if part) or None


def _differ(old: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether a file is another one; contents count where both have a digest of them, which not every checkpoint has."""
    return old[0] != now[0] or bool(old[1] and now[1] and old[1] != now[1] and old[1].startswith("tag:") == now[1].startswith("tag:"))


def refuse(step: int, what: str, where: str = "data.source") -> JobError:
    """GTJ0216. `where` is the field that names the data."""
    why = sentences(what, "Going on would train on other data than the run began with, and its losses would not compare")
    how = "put the data back; or set checkpoints.allowDataChange: true, and the report marks the step; or start afresh with --fresh"
    return JobError("GTJ0216", f"the data has changed since the checkpoint of step {step}", where=where, why=why, how=how)


def _named(how: str, names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {how} ({shown})" if names else ""


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise unreadable(path, error) from error


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
