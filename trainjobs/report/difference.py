"""Where two runs of one job part: the first step, and what is not the same there.

Compared are every metric of every step, as written, and of every checkpoint that both have the metadata and the digests of all files. What
is measured at a step is measured before its update, so it comes before the checkpoint of that step. Files of tensors (safetensors) are
opened where they differ, to name the tensors. Wall-clock time and what follows from it are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainjobs.api.checkpoints import Keep
from trainjobs.api.metrics import WAIT
from trainjobs.checkpoints import Checkpoints, Commit, open_store
from trainjobs.run.folder import Run

CLOCKS = ("time", "throughput", WAIT)  # keys of a row of metrics
ABSENT = "absent"
LONGEST = 100 << 20  # bytes of a safetensors file's header, by its specification


@dataclass(frozen=True)
class Difference:
    """At `step`, `quantity` is not the same: a metric, or something saved, such as "rank-0/generator.safetensors conv.weight". `values` are
    numbers, digests, or whatever was saved; ABSENT where there is none."""

    step: int
    saved: bool
    quantity: str
    values: tuple[Any, Any]


@dataclass(frozen=True)
class Comparison:
    """`steps` with rows, `metrics` by name, `checkpoints` by step; `first` of all differences, and `differences` in order."""

    steps: int
    metrics: tuple[str, ...]
    checkpoints: tuple[int, ...]
    files: int
    size: int
    differences: tuple[Difference, ...] = field(default=())

    @property
    def first(self) -> Difference | None:
        return self.differences[0] if self.differences else None


def compared(one: Run, other: Run) -> Comparison:
    """Two finished runs, with their checkpoints in their folders."""
    rows = [by_step(run) for run in (one, other)]
    commits = [newest_by_step(run) for run in (one, other)]
    found = list(unequal(*rows))
    both = sorted(commits[0].keys() & commits[1].keys())
    files = size = 0
    for step in both:
        pair = [saved(run, commits[side][step]) for side, run in enumerate((one, other))]
        files += len(pair[0].files)
        size += commits[0][step].size_bytes
        found += [Difference(step, True, *what) for what in apart(*pair)]
    last = max((*commits[0], *commits[1]), default=0)
    if last not in both:
        held = [f"a checkpoint of step {last}" if last in side else ABSENT for side in commits]
        found.append(Difference(last, True, "checkpoint", (held[0], held[1])))
    names = sorted({name for side in rows for row in side.values() for name in row})
    found.sort(key=lambda difference: (difference.step, difference.saved))
    return Comparison(len(rows[0]), tuple(names), tuple(both), files, size, tuple(found))


def by_step(run: Run) -> dict[int, dict[str, Any]]:
    """Everything that was written of a step."""
    found: dict[int, dict[str, Any]] = {}
    for row in run.metrics():
        measured = {name: value for name, value in row.items() if name not in (*CLOCKS, "step")}
        found.setdefault(int(row["step"]), {}).update(measured)
    return found


def unequal(one: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]]) -> Iterator[Difference]:
    """Metrics, the losses of a step first."""
    for step in sorted({*one, *other}):
        here, there = one.get(step, {}), other.get(step, {})
        for name in sorted({*here, *there}, key=lambda name: (not name.startswith("loss"), name)):
            values = here.get(name, ABSENT), there.get(name, ABSENT)
            if values[0] != values[1]:
                yield Difference(step, False, name, values)


def newest_by_step(run: Run) -> dict[int, Commit]:
    """The commits in use. One that was passed again after a kill counts as it was made last."""
    statuses = Checkpoints(open_store(run.checkpoints_uri()), keep=Keep()).commits()
    return {status.commit.step: status.commit for status in statuses if status.state == "live"}


@dataclass(frozen=True)
class Saved:
    """A commit's metadata, and its files with their digests by name: "rank-0/generator.safetensors". They lie in `folder`."""

    folder: Path
    metadata: Mapping[str, Any]
    files: Mapping[str, str]


def saved(run: Run, commit: Commit) -> Saved:
    folder = run.path / "checkpoints" / commit.prefix
    files: dict[str, str] = {}
    for rank in range(commit.world):
        told = json.loads((folder / f"rank-{rank}.json").read_text())
        files |= {f"rank-{rank}/{file['name']}": str(file["digest"]) for file in told["files"]}
    return Saved(folder, {**commit.metadata, "samples": commit.samples, "metrics": dict(commit.metrics)}, files)


def apart(one: Saved, other: Saved) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """What two checkpoints do not share: names, and values or digests."""
    for name in sorted({*one.metadata, *other.metadata}):
        values = one.metadata.get(name, ABSENT), other.metadata.get(name, ABSENT)
        if values[0] != values[1]:
            yield f"{name} (kept with the checkpoint)", values
    for file in sorted({*one.files, *other.files}):
        digests = one.files.get(file, ABSENT), other.files.get(file, ABSENT)
        if digests[0] == digests[1]:
            continue
        parts = [tensors(side.folder / file) if digest != ABSENT else {} for side, digest in zip((one, other), digests, strict=True)]
        named = [name for name in sorted({*parts[0], *parts[1]}) if parts[0].get(name) != parts[1].get(name)]
        if not named:
            yield file, digests
        for name in named:
            yield f"{file} {name}", (parts[0].get(name, ABSENT), parts[1].get(name, ABSENT))


def tensors(path: Path) -> dict[str, str]:
    """The digest of each tensor of a safetensors file, its type and shape included; {} for a file of another kind."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LONGEST, path.stat().st_size):
            return {}
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            found = {}
            for name, entry in entries.items():
                begin, end = entry["data_offsets"]
                file.seek(8 + length + begin)
                content = hashlib.sha256(file.read(end - begin))
                content.update(f"{entry['dtype']} {entry['shape']}".encode())
                found[name] = f"sha256:{content.hexdigest()}"
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}
    return found
