"""Texts: found, read and checked. No torch here: `preflight` uses it.

A document is a whole .txt, .md or .py file, or one record of a .jsonl file.
"""

from __future__ import annotations

import codecs
import json
import shlex
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.language import Language
from trainjobs.data.files import File, Listing, file_at, fingerprint, locate, look, megabytes, unreadable
from trainjobs.data.holdout import is_held
from trainjobs.data.source import divide
from trainjobs.data.tokens import ByteTokenizer, train_bpe

SUFFIXES = (".jsonl", ".md", ".py", ".txt")
PIECE = 16_384  # characters: several contexts of a small model, and enough of them in a megabyte to hold out a twentieth
CHECKED = 64_000_000  # characters that `check` reads; the rest is first read when training prepares its data
_STDLIB = 8_000_000  # bytes of the standard library that are read; 3.11's top modules are 4.7 MB


@dataclass(frozen=True)
class Texts:
    """The documents of a source. `key` changes when they do; `read` goes through them in order, each with what it is called by and whether
    it is of a split that is held out, which there is if `apart`."""

    key: str
    read: Callable[[], Iterator[tuple[str, str, bool]]]
    apart: bool = False

    def trained(self) -> Iterator[str]:
        return (text for _, text, held in self.read() if not held)


def text_files(source: str) -> tuple[File, ...]:
    """The texts `data.source` names, by name; JobError GTJ0113 when there are none."""
    return _there(source).files


def texts(spec: Spec) -> Texts:
    """The documents of a local source."""
    files, field = text_files(spec.data.uri), spec.data.text.field
    return Texts(fingerprint(files, field=field), lambda: ((name, text, False) for name, text in named(files, field)))


def _there(source: str) -> Listing:
    return Listing(stdlib_files()) if source == "builtin:stdlib-text" else look(locate(source), SUFFIXES, "text")


def stdlib_files() -> tuple[File, ...]:
    """The standard library's own top-level modules, which hold no tests: the same for one release of Python.

    _sysconfigdata*.py is left out, because it is written on the machine that builds the interpreter.
    """
    top = Path(sysconfig.get_path("stdlib"))
    files, total = [], 0
    for path in sorted(top.glob("*.py")):
        file = file_at(path, path.name)
        if not file.name.startswith("_sysconfigdata") and total + file.size <= _STDLIB:
            files.append(file)
            total += file.size
    if not files:
        raise JobError(
            "GTJ0113", "this Python comes without the sources of its standard library", where=str(top), how="name a folder of text"
        )
    return tuple(files)


def documents(files: Iterable[File], field: str) -> Iterator[str]:
    """The documents of the files, in order, empty ones left out; `field` is where a JSONL record keeps its text.

    JobError GTJ0113 names the file, and the line of a record, that cannot be read.
    """
    return (text for _, text in named(files, field))


def named(files: Iterable[File], field: str) -> Iterator[tuple[str, str]]:
    """The same with what each is called by: a file's name; of a record its text, since another line before it is no other record."""
    for file in files:
        try:
            if file.path.suffix.lower() == ".jsonl":
                yield from ((text, text) for text in _records(file.path, field) if text)
            elif text := file.path.read_text(encoding="utf-8-sig"):
                yield file.name, text
        except UnicodeDecodeError as error:
            raise foreign(file.path) from error
        except OSError as error:
            raise unreadable(file.path, error) from error


def _records(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                why = f"{error.msg} at character {error.pos + 1} of the line" if isinstance(error, json.JSONDecodeError) else str(error)
                raise JobError("GTJ0113", "the line is not JSON", where=where, why=why, how="write one JSON object per line") from error
            if not isinstance(record, dict):
                raise JobError(
                    "GTJ0113",
                    "the line is not a JSON object",
                    where=where,
                    why=f"it is {line.strip()[:40]}",
                    how=f'write {{"{field}": "..."}}',
                )
            text = record.get(field)
            if not isinstance(text, str):
                there = field in record
                why = f"it is {_shown(text)}" if there else "its fields are " + (", ".join(map(_shown, list(record)[:8])) or "none")
                as_text = f', such as {{"{field}": {json.dumps(str(text))}}}' if isinstance(text, int | float) else ""
                raise JobError(
                    "GTJ0113",
                    f"the record has no text in field {field}",
                    where=where,
                    why=why,
                    how=f"write a string in quotes{as_text}" if there else "set data.text.field to the field that holds the text",
                )
            # JSON can spell half a surrogate pair, which no encoding can write.
            yield text.encode("utf-8", "replace").decode()


def divided(name: str, text: str, holdout: float) -> Iterator[tuple[bool, str]]:
    """A document's parts, each with whether it is held out. A long one is divided into pieces of PIECE characters, each by its name and
    number, so that one file of everything has two sides as well; pieces that follow each other on one side stay together."""
    since = 0
    for start in range(0, len(text), PIECE):
        stop = start + PIECE
        side = is_held(f"{name}#{start // PIECE}", holdout)
        if stop >= len(text) or is_held(f"{name}#{start // PIECE + 1}", holdout) != side:
            yield side, text[since:stop]
            since = stop


def foreign(path: Path) -> JobError:
    """The error for a file that is not UTF-8: which line, and which byte of the file. A decoder counts in the buffer that it was given."""
    at = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                why, how = "it begins as UTF-16 does", f"convert it: iconv -f utf-16 -t utf-8 {shlex.quote(path.name)}"
                return JobError("GTJ0113", f"{path.name} is not UTF-8 text", where=f"{path}:1", why=why, how=how)
            try:
                line.decode()
            except UnicodeDecodeError as error:
                why = f"byte {at + error.start} of the file, 0x{line[error.start]:02x}, is none of UTF-8 there ({error.reason})"
                how = "convert it with iconv, or remove the file"
                return JobError("GTJ0113", f"{path.name} is not UTF-8 text", where=f"{path}:{number}", why=why, how=how)
            at += len(line)
    return JobError("GTJ0113", f"{path.name} changes while it is read", where=str(path), how="train when it is written")


def settings(spec: Spec) -> Language:
    """Tokenizer and context length of a job on text; a custom job gets the defaults."""
    return spec.language or Language()


def enough(tokens: int, context: int, data: Data) -> tuple[int, int]:
    """(training, held-out) sequences of context + 1 tokens, one every `context`; JobError GTJ0113 when the text is too short."""
    sequences = 2 if data.holdout > 0 else 1
    needed = sequences * context + 1
    if tokens < needed:
        what = f"two sequences of {context}, one of them held out" if sequences == 2 else f"one sequence of {context}"
        raise JobError(
            "GTJ0113",
            "the text is too short",
            where=data.uri,
            why=f"{tokens} tokens found, {needed} needed for {what}",
            how="add text, or lower language.network.contextLength",
        )
    return divide((tokens - 1) // context, data.holdout, data.uri, "sequence")


def found(spec: Spec) -> str:
    """What the text is, in a line; JobError GTJ0113 when training could not read it. Reads up to CHECKED characters."""
    data = spec.data
    there = _there(data.uri)
    files = there.files
    context = settings(spec).network.context_length
    plenty = 64 * (2 * context + 1)  # characters that make enough tokens; repetitive text might not, and fails when it is opened
    count, length, kept = 0, 0, list[str]()
    for text in documents(files, data.text.field):
        count += 1
        length += len(text)
        if length <= plenty:
            kept.append(text)
        if length > CHECKED:
            break
    if length <= plenty:
        tokenizer = settings(spec).tokenizer
        encode = (ByteTokenizer() if tokenizer.type == "byte" else train_bpe(kept, tokenizer.vocabulary_size)).encode
        enough(sum(len(encode(text)) + 1 for text in kept), context, data)
    more = " or more" if length > CHECKED else ""
    line = f"{megabytes(sum(file.size for file in files))} of text: {len(files)} files, {count}{more} documents"
    return "; ".join([line, *there.words()])


def _shown(value: object) -> str:
    """A value of a record, for a message."""
    if isinstance(value, dict | list):  # as deep as anybody likes
        return "an object" if isinstance(value, dict) else "a list"
    return value[:40] if isinstance(value, str) else json.dumps(value)[:40]
