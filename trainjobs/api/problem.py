"""One thing that is wrong with a manifest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from trainjobs.api.codes import CODES, OK
from trainjobs.api.errors import JobError
from trainjobs.api.shape import Path, dotted


@dataclass(frozen=True)
class Problem:
    """`path` names the value (manifest keys, camelCase); `on_key` says that the key itself, not its value, is at fault;
    `beside` is the value to show when the one at `path` is a default that nobody wrote."""

    code: str
    path: Path
    what: str
    why: str = ""
    how: str = ""
    on_key: bool = False
    beside: Path = ()

    @property
    def note(self) -> bool:
        """Whether it is only told, and nothing is refused."""
        return CODES[self.code].exit_code == OK

    def error(self) -> JobError:
        """The same as the exception users see, for places without a file to point into."""
        return JobError(self.code, self.what, where=dotted(self.path), why=self.why, how=self.how)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a user most likely meant, whatever the case and with or without underscores; None when none is close."""
    by_plain = {plain(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(plain(word), by_plain, n=1, cutoff=0.6)
    return by_plain[close[0]] if close else None


def plain(word: str) -> str:
    return word.replace("_", "").replace("-", "").lower()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'did you mean "learningRate"?', or "" when nothing is close."""
    match = nearest(word, known)
    return f'did you mean "{match}"?' if match else ""


def listed(words: Iterable[object], last: str = "or") -> str:
    """a, b or c."""
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"
