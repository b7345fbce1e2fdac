"""Samples that cannot be read and are left out: counted, the first hundred named, and at most one in a hundred. No torch here."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainjobs.api.errors import JobError

NAME = "bad-samples.jsonl"  # in the run folder
NAMED = 100
MOST = 0.01
FEW, MOST_OF_FEW = 1000, 10  # of fewer samples than that, so many


@dataclass
class BadSamples:
    """Of one process. `path`, if any, takes a row for each of the first hundred, {"where", "why"}, over attempts: those of earlier ones
    stay, and none is named twice. `samples` is how many there are to be seen, `source` what a message calls them."""

    path: Path | None
    samples: int
    source: str
    say: Callable[[str], None] = logging.getLogger(__name__).warning
    _seen: int = 0
    _bad: set[tuple[int, int]] = field(default_factory=set)  # (block, row)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __contains__(self, row: tuple[int, int]) -> bool:
        return row in self._bad

    def saw(self, count: int) -> None:
        """So many samples were asked for, the bad ones among them. JobError GTJ0113 when these are too many."""
        with self._lock:
            self._seen += count
            seen, bad = min(self._seen, self.samples), len(self._bad)
        if bad > (MOST * seen if seen >= FEW else MOST_OF_FEW):
            limit = f"{MOST:.0%}" if seen >= FEW else f"{MOST_OF_FEW} of fewer than {FEW:,}"
            why = f"{bad} of {seen:,} that were looked at, and data.onBadSample: skip leaves out {limit} at most"
            named = f"{self.path} names them: replace" if self.path else "replace"
            how = f"{named} or remove them, or look whether the data is what you mean"
            raise JobError("GTJ0113", "too many samples cannot be read", where=self.source, why=why, how=how)

    def add(self, row: tuple[int, int], error: JobError) -> None:
        """A sample (block, row) that cannot be read."""
        with self._lock:
            if row in self._bad:
                return
            self._bad.add(row)
            first = len(self._bad) == 1
            if len(self._bad) <= NAMED:
                self._name({"where": error.where, "why": ": ".join(part for part in (error.what, error.why) if part)})
        if first:
            others = f"others are named in {self.path}" if self.path else "others are only counted"
            self.say(f"left out, as data.onBadSample is skip, and its neighbour taken instead: {error.line()}; {others}")

    def left_out(self, row: tuple[int, int], error: JobError) -> None:
        """As `add`; what is no matter of the sample is raised."""
        if error.code != "GTJ0113":
            raise error
        self.add(row, error)

    def _name(self, row: dict[str, str]) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        named = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        line = json.dumps(row)
        if len(named) < NAMED and line not in named:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
