"""The one exception that users see. Anything else that reaches them is a defect of ours."""

from __future__ import annotations

import re
from typing import Any

from trainjobs.api.codes import CODES as CODES
from trainjobs.api.codes import Code as Code


class JobError(Exception):
    """What went wrong, where, why, and how to mend it, under a stable code.

    `code` is a key of CODES (KeyError otherwise: that is our mistake, not the user's). Texts carry no trailing full stop.
    What a terminal or UTF-8 cannot take is escaped: a file may be called anything.
    Survives pickling, since workers raise it and the driver reads it.
    """

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", how: str = "") -> None:
        self.exit_code: int = CODES[code].exit_code
        self.code = code
        self.what, self.where, self.why, self.how = map(printable, (what, where, why, how))
        super().__init__(self.line())

    def line(self) -> str:
        """One line: "GTJ0113 what (where): why. how". Empty parts leave no punctuation behind; line breaks become spaces."""
        text = f"{self.code} {self.what}"
        if self.where:
            text += f" ({self.where})"
        if self.why:
            text += f": {self.why}"
        if self.how:
            text = sentences(text, self.how)
        return " ".join(text.split())

    def to_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "title": CODES[self.code].title,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "how": self.how,
            "exitCode": self.exit_code,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JobError:
        """The inverse of `to_dict`. Unknown keys are ignored, so that failure.json may carry more."""
        return cls(data["code"], data["what"], where=data.get("where", ""), why=data.get("why", ""), how=data.get("how", ""))

    def __reduce__(self) -> tuple[Any, ...]:
        return (JobError.from_dict, (self.to_dict(),))


def sentences(*texts: str) -> str:
    """Texts one behind the other, each ended by one full stop, but the last, which stays as it is; empty ones are left out. Others' words
    may end with a full stop, with several, or with the mark of a text that was cut."""
    told = [text.strip() for text in texts if text.strip(" .")]
    bare = [text.rstrip(" .") for text in told[:-1]]
    return " ".join([*(text if text[-1] in "…?!" else f"{text}." for text in bare), *told[-1:]])


def printable(text: str) -> str:
    r"""The text with bytes that are no UTF-8 (of a file's name), control characters and what turns the direction of writing as \xff; lines
    and tabs stay."""
    if not isinstance(text, str) or text.isprintable():  # an older version's file may hold anything
        return text
    return "".join(character if character in "\n\t" or not _UNSEEN.match(character) else _escaped(character) for character in text)


_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # how Python keeps a byte that is not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else ascii(character)[1:-1]
