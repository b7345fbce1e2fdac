"""Which samples are held out. No torch here.

`by name`: a sample is held out when the hash of its own name is below the share, so its side depends on nothing but itself: data that
grows, shrinks or is sorted otherwise moves no sample to the other side. How many that makes follows from chance, and is told. `by place`
is for data that cannot grow, for text too short to be divided otherwise, and for runs begun before there was a choice.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Rule = Literal["name", "place"]


def position(name: str) -> float:
    """Where in [0, 1) a name lies: uniform, and the same on every machine. File names need not be UTF-8."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) / 2**64


def is_held(name: str, holdout: float) -> bool:
    return position(name) < holdout
