"""Attempts of a run, one after another in this process, and what the second one told of what had changed between them."""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from tests.silence.bases import STOPS
from tests.silence.changes import Change, Manifest, dumped, leaves, names_in
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.checkpointer.before import WITHOUT_EFFECT
from trainjobs.loop import train
from trainjobs.world import World

Verdict = Literal["same", "told", "refused", "SILENT", "FALSE", "DEFECT"]
UNTIMED = ("time", "throughput", "data/wait")
RUNS = itertools.count(1)


@dataclass(frozen=True)
class Attempt:
    """What one attempt left: digests of the last commit's tensors, its small states, the rows of metrics without times; what it told, or
    how it ended."""

    step: int = 0
    tensors: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    told: tuple[str, ...] = ()
    error: BaseException | None = None

    def same(self, other: Attempt) -> bool:
        """To the last bit."""
        ours, theirs = ((one.step, one.tensors, one.states, one.rows) for one in (self, other))
        return ours == theirs and bool(self.tensors)


@dataclass(frozen=True)
class Row:
    """What became of one change."""

    what: str
    base: str
    change: str
    verdict: Verdict
    words: str = ""

    @property
    def good(self) -> bool:
        return self.verdict in ("same", "told", "refused")


def attempt(run: Path, manifest: Manifest, *, stop: int | None = None) -> Attempt:
    """Train in the run folder, until after step `stop`; goes on where it has a checkpoint."""
    run.mkdir(parents=True, exist_ok=True)
    timeline = run / "attempts.jsonl"
    before = set(timeline.read_text().splitlines()) if timeline.exists() else set()  # going back takes some of them out

    def heartbeat(step: int) -> None:
        if step == stop:
            (run / "stop").touch()

    error: BaseException | None = None
    try:
        job = Job.model_validate(manifest)
        train(job, run, World(0, 1, torch.device("cpu")), since=time.time(), sync_every=1, heartbeat=heartbeat)
    except (Exception, SystemExit) as found:
        error = found.with_traceback(None)
    finally:
        (run / "stop").unlink(missing_ok=True)
        if next(RUNS) % 20 == 0:  # the loop freezes what is there at its first step, and with it what is left of the runs before
            gc.unfreeze()
            gc.collect()
    lines = timeline.read_text().splitlines() if timeline.exists() else []
    events = [json.loads(line) for line in lines if line not in before]
    told = tuple(event["message"] for event in events if event["event"] in ("changed", "dataChanged", "started") and event.get("message"))
    return left(run, manifest, told, error)


def left(run: Path, manifest: Manifest, told: tuple[str, ...], error: BaseException | None) -> Attempt:
    """What lies in the run folder."""
    if error is not None:
        return Attempt(told=told, error=error)
    there = store(run, manifest)
    records = [json.loads(path.read_text()) for path in sorted((there / "log").glob("*.json"))]
    body = next(record["body"] for record in reversed(records) if record["kind"] == "commit")
    files = sorted((there / body["prefix"]).glob("rank-*/*.safetensors"))
    tensors = {str(path.relative_to(there)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    states = {name: body["metadata"].get(name) for name in ("objective", "losses", "window")} | {"samples": body["samples"]}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    untimed = tuple({key: value for key, value in row.items() if key not in UNTIMED} for row in rows)
    return Attempt(body["step"], tensors, states, untimed, told)


def store(run: Path, manifest: Manifest) -> Path:
    """Where the checkpoints are."""
    uri = manifest["spec"]["checkpoints"].get("uri")
    return Path(uri.removeprefix("file://")) / manifest["metadata"]["name"] if uri else run / "checkpoints"


@dataclass
class Bench:
    """One base: a run that stopped at a step, from which every change goes on in a copy, and what goes on without any."""

    name: str
    manifest: Manifest
    folder: Path

    def __post_init__(self) -> None:
        self.begun = self.folder / self.name
        first = attempt(self.begun, self.manifest, stop=STOPS)
        assert first.error is None, f"{self.name}: {first.error!r}"
        assert first.step == STOPS
        self.reference = self.resumed(self.manifest)
        assert self.reference.error is None, f"{self.name}: {self.reference.error!r}"

    def resumed(self, manifest: Manifest) -> Attempt:
        copy = self.folder / f"{self.name}-goes-on"
        shutil.copytree(self.begun, copy)
        try:
            return attempt(copy, manifest)
        finally:
            shutil.rmtree(copy)
            shutil.rmtree(store(copy, manifest), ignore_errors=True)

    def tried(self, change: Change) -> Row:
        """Go on with the changed manifest."""
        said = ", ".join(f"{name} {shown(was)} -> {shown(now)}" for name, (was, now) in list(change.names.items())[:2])
        found = self.resumed(change.manifest)
        without = change.field.startswith(WITHOUT_EFFECT) or change.field.startswith("metadata.")
        return Row(change.field, self.name, said, *judged(found, self.reference, change, without))


def judged(found: Attempt, reference: Attempt, change: Change, without: bool) -> tuple[Verdict, str]:
    """Whether it went on identically or said what had changed. `without`: the field is said to have no effect."""
    if isinstance(found.error, JobError):
        line = found.error.line()
        named = names_in(line, [change.field, *change.names])
        return ("refused", found.error.code) if named else ("SILENT", f"refused without the field's name: {line}")
    if found.error is not None:
        return "DEFECT", repr(found.error)[:200]
    message, same = "; ".join(found.told), found.same(reference)
    known = names_in(message, [name for name, _ in leaves(dumped(change.manifest))])
    if wrong := known - set(change.names) - {change.field}:
        return "FALSE", f"told of {', '.join(sorted(wrong))}: {message}"
    if names_in(message, [change.field, *change.names]):
        return "told", "the result is the same" if same else ""
    if same:
        return "same", ""
    return "SILENT", "another result" + (f", although {change.field} is said to have no effect" if without else "")


def shown(value: Any) -> str:
    return "nothing" if value is None else str(value)[:40]
