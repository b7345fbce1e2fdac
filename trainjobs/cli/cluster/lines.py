"""Log lines as a container's log is read: with the server's time before each, opened again where it broke off, told apart by rank. Pure.

The driver's output holds everything: its own words, and what workers print, which Ray carries there as "(RayTrainWorker pid=7,
ip=10.0.0.5) ...". Which process has which rank Ray Train says once per group: "- (ip=10.0.0.5, pid=7) world_rank=0, ...". It says so when
the group has started, so that a worker's first words may come before anybody knows whose they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

# 2026-11-21T09:55:51.123456789Z, or with a zone: the kubelet writes the node's.
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SPEAKER = re.compile(r"\((?:([\w.:]+) )?pid=(\d+)(?:, ip=([0-9a-fA-F.:]+))?\) ?")
WORKER = "RayTrainWorker"
RANK = re.compile(r"\(ip=([0-9a-fA-F.:]+), pid=(\d+)\) world_rank=(\d+)\b")
HERE = ""  # Ray leaves out the address of a process on the driver's own node
MOST_HELD = 10_000  # lines of workers whose rank is not known yet


@dataclass(frozen=True)
class Line:
    """`at`: nanoseconds since 1970 as the node's clock had it; None when the line carries no time."""

    at: int | None
    text: str


def parsed(raw: str) -> Line:
    match = STAMP.match(raw)
    if match is None:
        return Line(None, raw)
    try:
        whole = datetime.fromisoformat(match[1] + ("+00:00" if match[3] == "Z" else match[3]))
    except ValueError:
        return Line(None, raw)
    return Line(int(whole.timestamp()) * 10**9 + int((match[2] or "0").ljust(9, "0")), raw[match.end() :])


def split(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines, their ends included, from pieces that end anywhere; the last one may lack its end."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", errors="replace") + "\n"
    if rest:
        yield rest.decode("utf-8", errors="replace")


@dataclass
class Stitch:
    """Where a log was left off, so that it can be opened again at that second without saying anything twice or leaving anything out.

    The kubelet hands out the lines of a second and later ones, in the order of the file, which need not be that of their times. So what was
    seen of the newest second is counted, and as many lines are passed over; one that is newer than all of them cannot have been seen.
    """

    newest: int | None = None
    seen: int = 0  # lines of the newest second
    unfinished: str = ""  # the last line, if it has no end
    _skip: int = 0

    def reopened(self) -> str | None:
        """Call before opening again: `sinceTime` for the request, in whole seconds, which is all it can say."""
        self._skip = self.seen
        return None if self.newest is None else datetime.fromtimestamp(self.newest // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def new(self, line: Line) -> bool:
        """Whether a line was not there before."""
        if line.at is None:
            return True
        if self._skip and self.newest is not None and line.at <= self.newest:
            self._skip -= 1
            return False
        self._skip = 0
        if self.newest is None or line.at // 10**9 > self.newest // 10**9:
            self.seen = 0
        self.newest = line.at if self.newest is None else max(self.newest, line.at)
        self.seen += line.at // 10**9 == self.newest // 10**9
        return True


@dataclass
class Ranks:
    """Tells the lines of a driver's output apart. `only`: the one rank that is wanted."""

    only: int | None = None
    _of: dict[tuple[str, str], int] = field(default_factory=dict)
    _held: list[tuple[tuple[str, str], str]] = field(default_factory=list)

    @property
    def known(self) -> list[int]:
        """The ranks that were introduced so far."""
        return sorted(set(self._of.values()))

    def told(self, text: str) -> list[str]:
        """What to print for a line: itself, with "rank N |" for whom it comes from; with `only`, that rank's lines and nothing else."""
        plain = COLOUR.sub("", text)
        found = RANK.search(plain)
        if found is not None:
            self._of[found[1], found[2]] = self._of[HERE, found[2]] = int(found[3])
            said = [self._label(who, line) for who, line in self._held if self.only is not None and self._of.get(who) == self.only]
            self._held = [one for one in self._held if one[0] not in self._of]
            return said if self.only is not None else [text]
        speaker = SPEAKER.match(plain)
        if speaker is None or not (speaker[3] or speaker[1] == WORKER):
            return [] if self.only is not None else [text]
        who, rest = (speaker[3] or HERE, speaker[2]), plain[speaker.end() :]
        if self.only is None:
            return [self._label(who, rest) if who in self._of else text]
        if who in self._of:
            return [self._label(who, rest)] if self._of[who] == self.only else []
        self._held = [*self._held, (who, rest)][-MOST_HELD:]
        return []

    def _label(self, who: tuple[str, str], text: str) -> str:
        return text if self.only is not None else f"rank {self._of[who]} | {text}"
