"""ROUGE-L of a text (Lin, 2004): of the longest common subsequence of words, of length l,

    R = l / words of the reference,   P = l / words written,   F = 2 R P / (R + P)

Words are runs of letters and digits, in lower case; rouge-score knows a to z and 0 to 9 alone, so of such texts both say the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")


def rouge_l(made: str, reference: str) -> float:
    """F, 0 to 1; 0 where one of them has no word."""
    ours, theirs = (_WORD.findall(text.lower()) for text in (made, reference))
    if not (common := subsequence(ours, theirs)):
        return 0.0
    recall, precision = common / len(theirs), common / len(ours)
    return 2 * recall * precision / (recall + precision)


def subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, theirs in enumerate(other, 1):
            before, row[at] = row[at], before + 1 if word == theirs else max(row[at], row[at - 1])
    return row[-1]
