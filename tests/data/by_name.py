"""What is held out by name, from names alone: the oracle of what the input path does block by block and rank by rank."""

from __future__ import annotations

from collections.abc import Sequence

from trainjobs.api.data import Data
from trainjobs.data.holdout import is_held, position
from trainjobs.data.source import divide, none_left


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
