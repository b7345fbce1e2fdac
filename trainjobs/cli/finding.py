"""What gtj doctor finds, of this machine or of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Finding:
    """`fail` keeps jobs from training; `mend` is what to do about it."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    detail: str
    mend: str = ""
