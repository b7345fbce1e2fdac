"""What a run tells about itself: rows of metrics, the state of the moment, the timeline. All of it files in the run folder.

`progress.json` is what the live line, `gtj status` and, on a cluster, the operator read; it is replaced atomically. Only rank 0
and the driver write here, one after the other.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError


def replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:  # a full disk must not be left fuller
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where there is none yet."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def update(run: Path, now: Callable[[], float] = time.time, **fields: Any) -> None:
    """Change fields of progress.json and keep the others."""
    replace(run / "progress.json", json.dumps({**read(run / "progress.json"), **fields, "updatedAt": now(), "pid": os.getpid()}))


def preparing(run: Path, leads: bool, heartbeat: Callable[[int], None], words: str) -> None:
    """What is done before the first step: a sign of life of every worker, said by rank 0."""
    heartbeat(0)
    logging.getLogger(__name__).info(words)
    if leads:
        update(run, activity=words)


def mark(run: Path, event: str, now: Callable[[], float] = time.time, **fields: Any) -> None:
    """Add a line to the timeline."""
    with (run / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"time": now(), "event": event, **fields}) + "\n")


def marked(run: Path, message: str) -> bool:
    """Whether the timeline has a row with this message."""
    path = run / "attempts.jsonl"
    return path.exists() and f'"message": {json.dumps(message)}' in path.read_text()


def warn(run: Path, attempt: int, error: Exception) -> None:
    """Add to the timeline what the user should know although the run goes on; `gtj run` prints it."""
    mark(run, "warning", attempt=attempt, message=str(error))


@contextmanager
def spared(run: Path, attempt: int) -> Iterator[None]:
    """What goes wrong with something that a run can do without is told, and does not end it."""
    try:
        yield
    except (JobError, OSError) as error:
        warn(run, attempt, error)


def timeline(run: Path, since: float) -> Callable[[str], None]:
    """Notes how many seconds after `since` each part of the start was over, in timeline.json."""

    def note(part: str) -> None:
        noted = read(run / "timeline.json")
        if noted.get("since") != since:
            noted = {"since": since}
        replace(run / "timeline.json", json.dumps({**noted, part: round(time.time() - since, 3)}))

    return note


class Metrics:
    """metrics.jsonl and the TensorBoard events beside it."""

    def __init__(self, run: Path, step: int, now: Callable[[], float] = time.time) -> None:
        """Opens the files of a run that goes on from `step`: rows beyond it are of a future that did not happen. `last` is the newest row
        of training that stays, {} without one."""
        self._path, self._step = run / "metrics.jsonl", step
        self._now = now
        kept: list[str] = []
        if self._path.exists():
            kept = [line for line in self._path.read_text().splitlines() if _step(line) <= step]
            replace(self._path, "".join(line + "\n" for line in kept))
        self.last: dict[str, Any] = next((row for row in map(json.loads, reversed(kept)) if "samples" in row), {})
        self._file = self._path.open("a", buffering=1)
        self._folder = run / "events"
        self._events: Any = None
        if any(self._folder.glob("events.out.tfevents.*")):
            self._tensorboard()  # purges what is beyond the step, whether a row follows or not

    def write(self, step: int, row: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, "time": self._now(), **{key: plain(value) for key, value in row.items()}}) + "\n")
        self._tensorboard().scalars(step, row)

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def _tensorboard(self) -> Any:
        # Imported at the first row: it costs a quarter of a second that the first step need not wait for.
        if self._events is None:
            from trainjobs.run.events import Events

            self._events = Events(self._folder, self._step, self._now)
        return self._events


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 2**62  # a row torn by a crash: drop it


def plain(value: float) -> float | str:
    """A metric as JSON can hold it: there is no NaN and no infinity in it."""
    return value if value - value == 0 else str(value)


class Rate:
    """Steps per second since the last look, leaving out time spent on anything but steps. `seconds` went to steps up to the last look."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since, self._step, self._away, self.seconds = now(), 0, 0.0, 0.0

    def start(self, step: int) -> None:
        self._since, self._step, self._away = self._now(), step, 0.0

    def away(self, seconds: float) -> None:
        """Do not count so many seconds: a checkpoint, an evaluation."""
        self._away += seconds

    def look(self, step: int) -> float:
        """Steps per second since the last look; 0 when there were none."""
        elapsed = self._now() - self._since - self._away
        steps = step - self._step
        self.seconds += max(0.0, elapsed) if steps else 0.0
        self.start(step)
        return steps / elapsed if elapsed > 0 else 0.0
