"""The reading side of a run folder.

Whoever reads may come at any time: before the first file exists, while a row is half written, or after the machine went
down. So nothing here raises for what is missing or torn: it reads as empty. The layout is described in docs/reference/run-folder.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainjobs.api.uris import file_uri

Row = dict[str, Any]

FAMILIES = ("gan", "vae", "diffusion", "language", "custom")
LIVE = ("Preparing", "Starting", "Running", "Recovering", "Stopping")
INTERRUPTED = "Interrupted"
RECORD = "record.json"  # in a folder that was put together from a record (recorded.py): where that is
FRESH = 150.0  # seconds: a run says something twice a second, and its record follows within a minute


@dataclass(frozen=True)
class Run:
    """A run folder. Every method reads the disk afresh."""

    path: Path

    @property
    def name(self) -> str:
        metadata = self.job().get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return name if isinstance(name, str) else self.path.name

    @property
    def exists(self) -> bool:
        return (self.path / "job.json").is_file()

    @property
    def stop_file(self) -> Path:
        return self.path / "stop"

    @property
    def driver_log(self) -> Path:
        return self.path / "logs" / "driver.log"

    def job(self) -> Row:
        """job.json: the validated manifest with its defaults."""
        return document(self.path / "job.json")

    def spec(self) -> Row:
        spec = self.job().get("spec")
        return spec if isinstance(spec, dict) else {}

    def family(self) -> str:
        return next((name for name in FAMILIES if name in self.spec()), "-")

    def changes(self) -> Row:
        """changes.json: what the command line changed, by path."""
        return document(self.path / "changes.json")

    def progress(self) -> Row:
        return document(self.path / "progress.json")

    def failure(self) -> Row | None:
        """failure.json, when the last attempt left one that says anything."""
        found = document(self.path / "failure.json")
        return found if isinstance(found.get("code"), str) else None

    def versions(self) -> Row:
        return document(self.path / "versions.json")

    def metrics(self) -> list[Row]:
        """Rows of metrics.jsonl that have a step, in the order of the steps."""
        rows = [row for row in lines(self.path / "metrics.jsonl") if isinstance(row.get("step"), int)]
        return sorted(rows, key=lambda row: int(row["step"]))

    def attempts(self) -> list[Row]:
        """Rows of attempts.jsonl, the timeline, as written."""
        return list(lines(self.path / "attempts.jsonl"))

    def checkpoints_uri(self) -> str:
        """Where the trainer keeps them: below the manifest's URI by uid or name, else in the run folder."""
        uri = self.spec().get("checkpoints", {}).get("uri")
        if not isinstance(uri, str):
            return file_uri(str(self.path.resolve() / "checkpoints"))
        return f"{uri.rstrip('/')}/{self.job().get('metadata', {}).get('uid') or self.name}"

    @property
    def place(self) -> str:
        """Where the run is: this folder, or, when the folder was put together from a record, the record's."""
        uri = document(self.path / RECORD).get("uri")
        return uri if isinstance(uri, str) else str(self.path)

    def in_use(self) -> bool:
        """Whether a driver, or the `gtj run` that restarts it, is alive: both hold a lock that the kernel drops with them. Of a record,
        whether it is as new as one of a run that goes on."""
        if (self.path / RECORD).is_file():
            updated = self.progress().get("updatedAt")
            return isinstance(updated, int | float) and time.time() - updated < FRESH
        return held(self.path / "lock") or held(self.path / "gtj.lock")

    def phase(self) -> str:
        """The phase, or Interrupted when progress.json says it is running while nobody is."""
        phase = self.progress().get("phase")
        if not isinstance(phase, str):
            return "Preparing" if self.in_use() else INTERRUPTED
        return INTERRUPTED if phase in LIVE and not self.in_use() else phase


def document(path: Path) -> Row:
    """A JSON object; {} when the file is missing, torn or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def lines(path: Path) -> Iterator[Row]:
    """The JSON objects of a JSONL file; a torn last row is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    yield from objects(text)


def objects(text: str) -> Iterator[Row]:
    """The JSON objects of a text, one to a line; other lines are left out."""
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def held(path: Path) -> bool:
    """Whether some process holds the flock on this file. The probe takes a shared lock for an instant."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
