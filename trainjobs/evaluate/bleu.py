"""BLEU of a corpus (Papineni et al., 2002), as sacreBLEU measures it (Post, 2018): tokens of mteval-v13a, n-grams up to 4.

    BLEU = 100 min(1, exp(1 - r / c)) exp(1/4 sum_n log p_n),   p_n = matches of n-grams, clipped by the reference / n-grams written

over all texts together, c and r their tokens and the references'. Where no n-gram of a length matches, p_n is 1 / (2^k * n-grams), k the
number of such lengths so far (NIST's smoothing, sacreBLEU's "exp").
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 4
_NAMED = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_APART = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),  # signs, but for those of the next lines
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),  # a dot or a comma, but within a number
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),  # a dash behind a digit
)


@dataclass(frozen=True)
class Counts:
    """What BLEU is of; of several texts their sum."""

    matches: tuple[int, ...] = (0,) * LONGEST
    written: tuple[int, ...] = (0,) * LONGEST
    length: int = 0
    reference: int = 0

    def __add__(self, other: Counts) -> Counts:
        matches, written = (
            tuple(map(sum, zip(one, two, strict=True))) for one, two in ((self.matches, other.matches), (self.written, other.written))
        )
        return Counts(matches, written, self.length + other.length, self.reference + other.reference)


def tokens(text: str) -> list[str]:
    for sign, plain in _NAMED:
        text = text.replace(sign, plain)
    text = f" {text} "
    for pattern, instead in _APART:
        text = pattern.sub(instead, text)
    return text.split()


def counts(made: str, reference: str) -> Counts:
    """Of one text."""
    ours, theirs = tokens(made.rstrip()), tokens(reference.rstrip())
    grams = [(_grams(ours, n), _grams(theirs, n)) for n in range(1, LONGEST + 1)]
    matches = tuple((one & other).total() for one, other in grams)
    return Counts(matches, tuple(one.total() for one, _ in grams), len(ours), len(theirs))


def bleu(found: Counts) -> float:
    """0 to 100."""
    if not any(found.matches) or not all(found.written):
        return 0.0
    total, halvings = 0.0, 0
    for matches, written in zip(found.matches, found.written, strict=True):
        halvings += not matches
        total += math.log(matches / written if matches else 1 / (2**halvings * written))
    short = min(0.0, 1 - found.reference / found.length)
    return 100 * math.exp(short + total / LONGEST)


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
