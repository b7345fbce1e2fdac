"""A manifest from a file: read, changed by `--set`, checked, and every problem shown where it stands.

A file may hold several documents, as for kubectl. Those of another kind (a Secret, a ConfigMap) are left alone. What only the API server
writes, `status` and some of `metadata`, is ignored, so that the output of `kubectl get -o yaml` is a manifest too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import GROUP, KIND, Job
from trainjobs.api.notes import notes
from trainjobs.api.parse import parse
from trainjobs.api.problem import Problem, listed, nearest
from trainjobs.api.rules import check
from trainjobs.api.shape import Path
from trainjobs.cli.overrides import overridden
from trainjobs.cli.positions import Document, Position, documents
from trainjobs.cli.relative import absolute, rewritten

MOST_BYTES = 1024 * 1024  # more than etcd stores for one object
SERVER_METADATA = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
)


@dataclass(frozen=True)
class Found:
    """A problem and where it stands: `source` is the file's name or "--set path=value", which has no position."""

    source: str
    at: Position | None
    line: str
    problem: Problem


@dataclass(frozen=True)
class Change:
    """What the command line did to a value: `by` is the option, `was` what the manifest says, None for nothing."""

    path: Path
    by: str
    was: Any = None


@dataclass(frozen=True)
class Manifest:
    """One job of a file. `job` is there when `found` is empty; `notes` are what is only told. `resolved` are the data's relative paths as
    they are here, as they are in `text` too; those of --set are in `resolved` alone."""

    source: str
    text: bytes
    job: Job | None
    found: tuple[Found, ...]
    name: str = ""
    changes: tuple[Change, ...] = ()
    notes: tuple[Found, ...] = ()
    resolved: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A file's jobs, in order, and notes on its other documents."""

    manifests: tuple[Manifest, ...]
    notes: tuple[str, ...] = field(default=())


class InvalidManifest(JobError):
    """Everything that is wrong with a manifest. As a JobError it speaks for the first problem."""

    def __init__(self, found: Sequence[Found]) -> None:
        first = found[0]
        where = f"{first.source}:{first.at.line}:{first.at.column}" if first.at else first.source
        super().__init__(first.problem.code, first.problem.what, where=where, why=first.problem.why, how=first.problem.how)
        self.found = tuple(found)


def load(source: str, sets: Sequence[str] = (), workers: int | None = None, *, here: bool = False) -> Loaded:
    """Reads a file, or standard input for "-". `sets` are "training.steps=10"; `workers` replaces spec.compute.workers in the rules.
    `here`: the job is for this machine, so that relative paths of data mean something.

    GTJ0118 when there is no such file. What is wrong inside is in the manifests, not raised.
    """
    text = read(source)
    name = "<stdin>" if source == "-" else source
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = Position(text[: error.start].count(b"\n") + 1, 1)
        problem = Problem("GTJ0105", (), "the file is not UTF-8 text", how="save it as UTF-8")
        return Loaded((Manifest(name, text, None, (Found(name, at, "", problem),)),))
    lines = decoded.splitlines()
    manifests, notes = [], []
    everything = list(documents(decoded))
    folder = (File() if source == "-" else File(source).parent) if here else None
    for document in everything:
        if document.data is None or concerns_us(document.data, alone=len(everything) == 1):
            manifests.append(checked(name, text, lines, document, sets, workers, folder))
        else:
            kind = document.data.get("kind", "document without a kind") if isinstance(document.data, dict) else "document"
            notes.append(f"{name}:{document.values[()].line}: left alone: {kind}")
    if not manifests:
        problem = Problem("GTJ0105", (), f"no {KIND} in it", how="write one with: gtj init vae")
        manifests.append(Manifest(name, text, None, (Found(name, None, "", problem),)))
    return Loaded(tuple(manifests), tuple(notes))


def load_job(source: str, sets: Sequence[str] = (), workers: int | None = None, *, here: bool = False) -> Manifest:
    """The one job of a file. InvalidManifest when it, or another job of the file, has problems; GTJ0105 when there are several."""
    loaded = load(source, sets, workers, here=here)
    found = [problem for manifest in loaded.manifests for problem in manifest.found]
    if found:
        raise InvalidManifest(found)
    if len(loaded.manifests) > 1:
        names = listed([manifest.name for manifest in loaded.manifests], "and")
        raise JobError(
            "GTJ0105", f"{len(loaded.manifests)} jobs in one file", where=source, why=names, how="put each into a file of its own"
        )
    return loaded.manifests[0]


def read(source: str) -> bytes:
    try:
        text = sys.stdin.buffer.read(MOST_BYTES + 1) if source == "-" else File(source).read_bytes()
    except IsADirectoryError:
        raise JobError("GTJ0118", "a folder, not a manifest", where=source, how="name a file in it") from None
    except OSError as error:
        near = nearest(File(source).name, [path.name for path in File(source).parent.glob("*.y*ml")])
        how = f'did you mean "{File(source).with_name(near)}"?' if near else "write one with: gtj init vae -o job.yaml"
        raise JobError("GTJ0118", "the manifest cannot be read", where=source, why=error.strerror or str(error), how=how) from None
    if len(text) > MOST_BYTES:
        raise JobError("GTJ0105", "the manifest is larger than 1 MiB", where=source, why="no cluster would store it")
    return text


def concerns_us(data: Any, alone: bool) -> bool:
    """Whether a document is meant as a job: of our kind or group, or the only one there is."""
    if not isinstance(data, dict):
        return alone
    group, _, _ = str(data.get("apiVersion", "")).partition("/")
    if data.get("kind") == "ComputeProfile" and group == GROUP:
        return False
    return alone or group == GROUP or data.get("kind") == KIND


def checked(
    name: str, text: bytes, lines: Sequence[str], document: Document, sets: Sequence[str], workers: int | None, folder: File | None
) -> Manifest:
    found = [Found(name, at, source_line(lines, at), problem) for at, problem in document.problems]
    if document.data is None:
        return Manifest(name, text, None, tuple(found))
    given = written(document.data)
    data, changed, refused = overridden(given, sets)
    found += [Found(origin, None, "", problem) for origin, problem in refused]
    resolved: dict[Path, str] = {}
    if folder is not None:
        data, resolved = absolute(data, folder)
        text = rewritten(text, document, folder)
    job, problems = parse(data)
    if job is not None and workers is not None and not problems:
        problems = check(job, workers)
    told = notes(job) if job is not None and not problems else []
    for problem in (*problems, *told):
        origin = next(
            (origin for path, origin in changed.items() if path in (problem.path[: len(path)], problem.beside[: len(path)])), None
        )
        at = None if origin else position(document, problem)
        found.append(Found(origin or name, at, source_line(lines, at), problem))
    found.sort(key=lambda one: (one.at is None, one.at.line if one.at else 0, one.at.column if one.at else 0))
    changes = tuple(Change(path, origin, at_path(given, path) if holds(given, path) else None) for path, origin in changed.items())
    wrong = tuple(one for one in found if not one.problem.note)
    remarks = () if wrong else tuple(one for one in found if one.problem.note)
    whose = job.metadata.name if job else ""
    return Manifest(name, text, None if wrong else job, wrong, whose, changes, remarks, tuple(resolved.items()))


def written(data: Any) -> Any:
    """The manifest without what only the API server writes."""
    if not isinstance(data, dict):
        return data
    metadata = data.get("metadata")
    rest = {key: value for key, value in data.items() if key != "status"}
    if isinstance(metadata, dict):
        rest["metadata"] = {key: value for key, value in metadata.items() if key not in SERVER_METADATA}
    return rest


def position(document: Document, problem: Problem) -> Position:
    """Where a problem stands: its value or key, else the nearest part of the manifest around it."""
    path = problem.path
    if path not in document.values and problem.beside and problem.beside in document.values:
        path = problem.beside
    if problem.on_key and path in document.keys:
        return document.keys[path]
    if path in document.values:
        scalar = not isinstance(at_path(document.data, path), dict | list | None)
        return document.values[path] if scalar or path not in document.keys else document.keys[path]
    while path and path not in document.keys:
        path = path[:-1]
    return document.keys.get(path) or document.values[()]


def at_path(data: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        data = data[key]
    return data


def holds(data: Any, path: Sequence[str | int]) -> bool:
    """Whether there is anything at that path."""
    try:
        at_path(data, path)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def source_line(lines: Sequence[str], at: Position | None) -> str:
    return lines[at.line - 1] if at and at.line <= len(lines) else ""
