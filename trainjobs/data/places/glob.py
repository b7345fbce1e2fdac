"""Names by a pattern, as people write them for shards: `train-{000000..000127}.tar`, `*/images/*.jpg`, `**/*.[jJ]pg`.

`*` stands for any part of a name, `**` as a whole name for any number of folders, `[ab]`, `[a-c]` and `[!a]` for one character, `{a,b}`
and `{000..127}` (and `{0..99..3}`) for each of what they list. Whatever braces name must be there: a shard that is missing is told. A
pattern whose last part is plain may be a folder: it stands for all that lies below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

MOST = 100_000  # alternatives
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")


@dataclass(frozen=True)
class Glob:
    """`base`: the folder that the pattern lies in, without a pattern in it, "" or with a slash at its end; `prefix`: what every path
    begins with, at least `base`; `patterns`: all that may follow `base`, braces written out."""

    base: str
    prefix: str
    patterns: tuple[str, ...]

    def choose(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Of names relative to `base` those that fit, in the order given; and the patterns that nothing fits."""
        plain = {each.rstrip("/") for each in self.patterns if not _wild(each)}
        wild = [each for each in self.patterns if _wild(each)]
        fits = re.compile("|".join(map(_expression, wild))).fullmatch if wild else None
        found: list[str] = []
        met: set[str] = set()
        for name in names:
            beginnings = plain.intersection(_beginnings(name))
            met |= beginnings
            if beginnings or (fits and fits(name)):
                found.append(name)
        missing = [each for each in self.patterns if not _wild(each) and each.rstrip("/") not in met]
        missing += [each for each in wild if len(wild) > 1 and not any(map(re.compile(_expression(each)).fullmatch, found))]
        return found, missing if found else list(self.patterns)


def parse(path: str) -> Glob | None:
    """The pattern that a path is; None of a path that is none. ValueError, fit to be shown, for one that names too much."""
    patterns = list(_expanded(path))
    if patterns == [path] and not _wild(path):
        return None
    at = min(found for each in "*[{" if (found := path.find(each)) >= 0)
    base = path[: path.rfind("/", 0, at) + 1]
    return Glob(base, path[:at], tuple(dict.fromkeys(each.removeprefix(base) for each in patterns)))


def _expanded(text: str) -> Iterator[str]:
    """Braces written out, the first ones slowest."""
    made, todo = 0, [("", text)]
    while todo:
        done, rest = todo.pop()
        span = _braces(rest)
        if span is None:
            made += 1
            if made > MOST:
                raise ValueError(f"its braces name more than {MOST:,} objects")
            yield done + rest
            continue
        start, end, choices = span
        if len(choices) > MOST or len(todo) > MOST:
            raise ValueError(f"its braces name more than {MOST:,} objects")
        todo.extend((done + rest[:start], choice + rest[end:]) for choice in reversed(choices))


def _braces(text: str) -> tuple[int, int, Sequence[str]] | None:
    """The first braces that list something: where they begin and end, and what they list."""
    for start, character in enumerate(text):
        if character != "{":
            continue
        depth, commas = 0, [start]
        for at in range(start, len(text)):
            depth += (text[at] == "{") - (text[at] == "}")
            if text[at] == "," and depth == 1:
                commas.append(at)
            if depth == 0:
                cuts = [*commas, at]
                choices = [text[one + 1 : two] for one, two in pairwise(cuts)]
                if len(choices) > 1:
                    return start, at + 1, choices
                if numbers := _RANGE.fullmatch(choices[0]):
                    return start, at + 1, _counted(*numbers.groups())
                break
    return None


def _counted(first: str, last: str, by: str | None) -> list[str]:
    """Numbers with as many digits as the longer of the two, where either has a zero in front."""
    padded = any(each.lstrip("-").startswith("0") and len(each.lstrip("-")) > 1 for each in (first, last))
    width = max(len(first), len(last)) if padded else 0
    one, two, step = int(first), int(last), abs(int(by or 1)) or 1
    if abs(two - one) // step >= MOST:
        raise ValueError(f"its braces name more than {MOST:,} objects")
    numbers = range(one, two + 1, step) if two >= one else range(one, two - 1, -step)
    return [f"{number:0{width}d}" if width else str(number) for number in numbers]


def _wild(pattern: str) -> bool:
    return "*" in pattern or re.search(r"\[[^/\]]+\]", pattern) is not None


def _beginnings(name: str) -> Iterator[str]:
    """A name, and the folders that it lies in."""
    yield name
    at = name.rfind("/")
    while at > 0:
        yield name[:at]
        at = name.rfind("/", 0, at)


def _expression(pattern: str) -> str:
    parts = pattern.rstrip("/").split("/")
    made = "".join("(?:[^/]+/)*" if part == "**" else f"{_part(part)}/" for part in parts[:-1])
    if parts[-1] == "**" or (parts[-1] and not _wild(parts[-1])) or pattern.endswith("/"):
        below = "[^/]+(?:/[^/]+)*" if parts[-1] == "**" else f"{_part(parts[-1])}(?:/.*)?"
        return f"(?:{made}{below})"
    return f"(?:{made}{_part(parts[-1])})"


def _part(part: str) -> str:
    """One name as a regular expression; what looks like a class and is none stands for itself."""

    def one(found: re.Match[str]) -> str:
        text = found[0]
        if text.startswith("*"):
            return "[^/]*"
        if len(text) > 1:
            negated, inner = text[1] in "!^", text[2:-1] if text[1] in "!^" else text[1:-1]
            escaped = inner.replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^").replace("&", "\\&").replace("~", "\\~")
            return f"(?!/)[{'^' if negated else ''}{escaped}]"
        return re.escape(text)

    return re.sub(r"\*+|\[[!^]?[^/\]]+\]|.", one, part, flags=re.DOTALL)
