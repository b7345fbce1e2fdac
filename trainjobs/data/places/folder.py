"""A folder, a file or a pattern of files of this machine, or of a file system that it mounts."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from trainjobs.api.errors import JobError, printable
from trainjobs.api.uris import file_path, file_uri
from trainjobs.data.files import file_at, locate
from trainjobs.data.places.glob import Glob, parse
from trainjobs.data.places.place import Listed, Object
from trainjobs.data.tree import leaves, special, unreadable, walk


class FolderPlace:
    """Nothing is looked at before it is asked for."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @property
    def uri(self) -> str:
        return self._uri

    def listed(self) -> Listed:
        pattern = self._pattern()
        if pattern is not None:
            return self._fitting(pattern)
        path = locate(self._uri)
        if not path.is_dir():
            if kind := special(path.stat().st_mode):
                raise JobError("GTJ0113", f"{path.name} is no file", where=str(path), why=f"it is a {kind}", how="name a folder or a file")
            return Listed((_object(path, path.name),))
        tree = walk(path)
        if not tree.names and not tree.special and not tree.hidden:
            raise JobError("GTJ0113", "the folder is empty", where=str(path), how="put data there, or mend data.source")
        hidden = Counter(hidden_kind(name) for name in tree.hidden)
        return Listed(_objects(path, tree.names), hidden + tree.special, tree.folders, tree.loops)

    def read(self, found: Object, start: int, stop: int) -> bytes:
        path = self._path(found)
        try:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(max(0, min(stop, found.size) - start))
        except OSError as error:
            raise unreadable(path, error) from error
        _unchanged(path, found)
        return data

    def fetch(self, found: Object, to: Path) -> None:
        path = self._path(found)
        try:
            file = open(path, "rb")  # noqa: SIM115  # what goes wrong below is the other disk's
        except OSError as error:
            raise unreadable(path, error) from error
        with file, open(to, "xb") as made:
            shutil.copyfileobj(file, made, 1 << 20)
        _unchanged(path, found)

    def contents(self, found: Object) -> bytes:
        return self.read(found, 0, found.size)

    def where(self, found: Object) -> str:
        return str(self._path(found))

    def _path(self, found: Object) -> Path:
        return found.path or Path(file_path(self._uri)) / found.name

    def _pattern(self) -> Glob | None:
        """The pattern of the URI; a file that is really called like that is no pattern."""
        path = Path(file_path(self._uri)).absolute()
        try:
            return None if path.exists() else parse(str(path))
        except OSError:  # a name that is too long to be one
            return parse(str(path))
        except ValueError as error:
            raise JobError("GTJ0107", "not a pattern that can be read", where=self._uri, why=str(error), how="mend data.source") from None

    def _fitting(self, pattern: Glob) -> Listed:
        base = locate(file_uri(pattern.base.rstrip("/") or "/"))
        if not base.is_dir():
            raise JobError("GTJ0113", "the data does not exist", where=self._uri, why=f"{base} is no folder", how="mend data.source")
        tree = walk(base, out=True)
        names, missing = pattern.choose(tree.names)
        if (left := tree.left_by(names)) is not None:
            raise leaves(base / left[0], left[1], base)
        if missing:
            raise unmatched(self._uri, str(base), tree.names, bool(names), missing)
        return Listed(_objects(base, names))


def hidden_kind(name: str) -> str:
    """ "hidden .jpg", as what is left out is counted."""
    return f"hidden {PurePosixPath(name).suffix.lower()}".rstrip()


def unmatched(uri: str, base: str, names: list[str], some: bool, missing: list[str]) -> JobError:
    """The error for a pattern that nothing fits, or of which braces name what is not there. `names` lie in `base`."""
    there = list(dict.fromkeys(name.partition("/")[0] + "/" * ("/" in name) for name in names))
    holds = f"{base} holds {printable(', '.join(there[:5]))}{', ...' if len(there) > 5 else ''}" if there else f"{base} is empty"
    if not some:
        return JobError("GTJ0113", "nothing fits the pattern", where=uri, why=holds, how="mend data.source")
    what = f"{len(missing):,} of what the pattern names {'is' if len(missing) == 1 else 'are'} missing"
    why = printable(", ".join(missing[:5]) + (", ..." if len(missing) > 5 else ""))
    return JobError("GTJ0113", what, where=uri, why=why, how="put it there, or name what there is")


def _objects(folder: Path, names: Sequence[str]) -> tuple[Object, ...]:
    """Those of a folder. Of many names what takes the time is making their paths into text, so that is not done to look at them."""
    top, found = os.path.join(folder, ""), list[Object]()
    for name in names:
        try:
            status = os.stat(top + name)
        except OSError as error:
            raise unreadable(folder / name, error) from error
        found.append(Object(name, status.st_size, _tag(status.st_size, status.st_mtime_ns), folder / name))
    return tuple(found)


def _tag(size: int, modified: int) -> str:
    return f"{size}-{modified}"


def _object(path: Path, name: str) -> Object:
    file = file_at(path, name)
    return Object(name, file.size, _tag(file.size, file.modified), path)


def _unchanged(path: Path, found: Object) -> None:
    """See that a file is still the one that was listed. JobError GTJ0113."""
    if _object(path, found.name).tag != found.tag:
        why, how = "it is another one than when the run began", "leave the data as it is while a run reads it"
        raise JobError("GTJ0113", f"{found.name} was changed while it was read", where=str(path), why=why, how=how)
