"""How sequences become samples of at most a context of tokens.

A sequence of n tokens has n - 1 predictions: token i + 1 from those up to i. A sample is a row of pieces of sequences, each as (sequence,
first, last) of the tokens that predict. `none`: each sequence by itself. `bfd`: whole sequences, several to a sample where they fit, by
best fit decreasing (Johnson, 1974): the longest first, each into the fullest sample that has room. `wrapped`: one after the other, cut
wherever a sample is full, so that no sample has a gap. Whatever the packing, attention sees one sequence: see language/attention.py.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

Piece = tuple[int, int, int]
Samples = list[list[Piece]]


def none(lengths: Sequence[int]) -> Samples:
    """`lengths` are predictions of each sequence, each at least 1."""
    return [[(number, 0, length)] for number, length in enumerate(lengths)]


def wrapped(lengths: Sequence[int], context: int) -> Samples:
    made: Samples = [[]]
    room = context
    for number, length in enumerate(lengths):
        first = 0
        while first < length:
            if not room:
                made.append([])
                room = context
            last = min(length, first + room)
            made[-1].append((number, first, last))
            room -= last - first
            first = last
    return [pieces for pieces in made if pieces]


def best_fit(lengths: Sequence[int], context: int) -> Samples:
    """None longer than the context. Samples are in the order of their longest sequence."""
    made: Samples = []
    open_: list[tuple[int, int]] = []  # (room, sample), ascending
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        length = lengths[number]
        at = bisect_left(open_, (length, -1))
        if at == len(open_):
            made.append([])
            room, sample = context, len(made) - 1
        else:
            room, sample = open_.pop(at)
        made[sample].append((number, 0, length))
        if room > length:
            insort(open_, (room - length, sample))
    return made


def packed(how: str, lengths: Sequence[int], context: int) -> Samples:
    """By a value of language.packing."""
    if how == "none":
        return none(lengths)
    return wrapped(lengths, context) if how == "wrapped" else best_fit(lengths, context)
