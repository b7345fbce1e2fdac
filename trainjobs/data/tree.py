"""A folder with all that lies in it: which names are files to be read, which are something else."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from trainjobs.api.errors import JobError

# What file managers, network drives and file systems make for themselves; the pictures in them are small copies of those beside them.
THEIR_OWN = frozenset({"@eaDir", "@Recycle", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
KINDS = ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"))
MANY = 100_000  # folders reached by links, beyond which they are no classes any more


@dataclass
class Tree:
    """Relative names, with "/". Links are followed: a folder that two links name is there twice, under both names. `leaving` are links
    that lead out of the folder, with where they lead: what lies there is nobody's to read who was given this folder."""

    names: list[str] = field(default_factory=list)  # files and links to nowhere, sorted
    hidden: list[str] = field(default_factory=list)  # files whose name begins with a dot
    special: Counter[str] = field(default_factory=Counter)  # "pipe", "socket", "device"
    folders: Counter[str] = field(default_factory=Counter)  # names of folders that were not entered
    loops: int = 0  # links back to a folder above
    leaving: dict[str, str] = field(default_factory=dict)

    def left_by(self, names: Iterable[str]) -> tuple[str, str] | None:
        """The first link, and where it leads, by which one of these names is reached that lies elsewhere."""
        for name in names if self.leaving else ():
            for link in (name, *(str(above) for above in PurePosixPath(name).parents)):
                if link in self.leaving:
                    return link, self.leaving[link]
        return None


def walk(top: Path, *, out: bool = False) -> Tree:
    """Nothing is opened but folders: a pipe would wait for ever. JobError GTJ0113 when a folder cannot be read, links multiply it, or one
    leads out of it, unless `out`: then they are noted."""
    tree, linked, inside = Tree(), 0, os.path.realpath(top)
    # Folders to enter, with those above them by device and number: only a link to one of these has no end.
    todo: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while todo:
        name, above = todo.pop()
        try:
            here = os.stat(top / name)
            if (here.st_dev, here.st_ino) in above:
                tree.loops += 1
                continue
            with os.scandir(top / name) as found:
                entries = sorted(found, key=lambda entry: entry.name)  # what is told shall not depend on the file system
        except OSError as error:
            raise unreadable(top / name, error) from error
        for entry in entries:
            relative = f"{name}/{entry.name}" if name else entry.name
            folder = _folder(entry)
            if entry.is_symlink() and (target := _leads_out(entry, inside)) is not None:
                if not out:
                    raise leaves(top / relative, target, top)
                tree.leaving[relative] = target
            if not folder:
                _file(tree, entry, relative)
            elif entry.name.startswith(".") or entry.name in THEIR_OWN:
                tree.folders[entry.name] += 1
            else:
                linked += entry.is_symlink()
                todo.append((relative, above | {(here.st_dev, here.st_ino)}))
        if linked > MANY:
            why = f"{linked:,} links to folders were followed, and there is no end in sight"
            raise JobError("GTJ0113", "links multiply the folder", where=str(top), why=why, how="remove links between its subfolders")
    tree.names.sort()
    return tree


def special(mode: int) -> str:
    """ "pipe", "socket" or "device" of a file's mode; "" of a regular file."""
    return next((name for is_a, name in KINDS if is_a(mode)), "")


def unreadable(path: Path, error: OSError) -> JobError:
    """The error for a file or folder that the system refuses to read."""
    how = "give the user who trains permission to read it" if isinstance(error, PermissionError) else "check the file and the disk"
    return JobError("GTJ0113", "the data cannot be read", where=str(error.filename or path), why=error.strerror or str(error), how=how)


def leaves(link: Path, target: str, top: Path) -> JobError:
    why, how = f"it leads to {target}, and the data is {top}", "copy there what it leads to, or name that in data.source or data.sources"
    return JobError("GTJ0113", "a link leads out of the data", where=str(link), why=why, how=how)


def _leads_out(entry: os.DirEntry[str], inside: str) -> str | None:
    """Where a link leads whose file or folder would be read, if that is not `inside`."""
    if entry.name.startswith(".") or entry.name in THEIR_OWN:
        return None
    target = os.path.realpath(entry.path)
    if target == inside or target.startswith(f"{inside.rstrip('/')}/"):
        return None
    try:
        return None if special(os.stat(target).st_mode) else target
    except OSError:  # to nowhere
        return target


def _folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP and not isinstance(error, PermissionError):
            raise unreadable(Path(entry.path), error) from error
        return False  # a link that nobody can follow; whether it matters is seen when the file is asked for


def _file(tree: Tree, entry: os.DirEntry[str], relative: str) -> None:
    try:
        kind = "" if entry.is_file() else special(entry.stat().st_mode)
    except OSError:  # a link to nowhere is told when it would be read
        kind = ""
    if entry.name.startswith("."):
        tree.hidden.append(relative)
    elif kind:
        tree.special[kind] += 1
    else:
        tree.names.append(relative)
