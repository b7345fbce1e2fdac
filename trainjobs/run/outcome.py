"""How training ended, as a value: for the workers, and for the driver, who asks nobody's words for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainjobs.run import progress

FILE = "outcome"  # beside the workers' accounts, which are *.json


@dataclass(frozen=True)
class Outcome:
    """finished: to its last step. stopped: it was asked to. replaced: so that another group of workers goes on. `why` is for people."""

    how: Literal["finished", "stopped", "replaced"]
    why: str = ""


def leave(run: Path, outcome: Outcome) -> None:
    """Tell the driver of the run folder."""
    progress.replace(run / "failures" / FILE, json.dumps({"how": outcome.how, "why": outcome.why}))


def left(run: Path) -> Outcome | None:
    """What was left, or None: then training has not ended by itself."""
    told = progress.read(run / "failures" / FILE)
    return Outcome(told["how"], told.get("why", "")) if told.get("how") in ("finished", "stopped", "replaced") else None
