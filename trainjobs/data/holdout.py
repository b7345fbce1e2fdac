"""Which samples are held out. No torch here.

`by name`: a sample is held out when the hash of its own name is below the share, so its side depends on nothing but itself: data that
grows, shrinks or is sorted otherwise moves no sample to the other side. How many that makes follows from chance, and is told. `by place`
is for data that cannot grow, for text too short to be divided otherwise, and for runs begun before there was a choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from trainjobs.api.data import Data
from trainjobs.data.source import divide, none_left

Rule = Literal["name", "place"]


def position(name: str) -> float:
    """Where in [0, 1) a name lies: uniform, and the same on every machine. File names need not be UTF-8."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64


def is_held(name: str, holdout: float) -> bool:
    return position(name) < holdout


def sides(names: Sequence[str], data: Data, noun: str) -> tuple[list[int], list[int]]:
    """(numbers of training samples, numbers of held-out samples), each ascending, by name.

    At least one of each: of a few samples none might lie below the share, and then the lowest is held out. JobError GTJ0113 when nothing
    would be left to train on.
    """
    if not data.holdout:
        return list(range(len(names))), []
    held = [number for number, name in enumerate(names) if is_held(name, data.holdout)]
    if not held or len(held) == len(names):
        divide(len(names), data.holdout, data.uri, noun)
        order = sorted(range(len(names)), key=lambda number: position(names[number]))
        held = order[:1] if not held else order[:-1]
    if len(held) == len(names):
        raise none_left(len(names), data.holdout, data.uri, noun)
    out = set(held)
    return [number for number in range(len(names)) if number not in out], sorted(held)
