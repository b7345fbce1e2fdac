"""Texts: found, read and checked. No torch here: `preflight` uses it.

A document is a whole .txt, .md or .py file, or one record of a .jsonl file.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.language import Language
from trainjobs.data.dataset import Dataset
from trainjobs.data.files import File, file_at, fingerprint, megabytes, unreadable
from trainjobs.data.formats import Format
from trainjobs.data.holdout import is_held
from trainjobs.data.places.place import Shelf
from trainjobs.data.source import divide

Row = tuple[bool, npt.NDArray[np.int32]]  # whether it is held out; the tokens of a document or of a piece
PIECE = 16_384  # characters: several contexts of a small model, and enough of them in a megabyte to hold out a twentieth
_STDLIB = 8_000_000  # bytes of the standard library that are read; 3.11's top modules are 4.7 MB


@dataclass(frozen=True)
class Texts:
    """The documents of a source. `key` changes when they do; `read` goes through them in order, each with what it is called by and whether
    it is of a split that is held out, which there is if `apart`."""

    key: str
    read: Callable[[], Iterator[tuple[str, str, bool]]]
    apart: bool = False
    ready: Callable[[], Iterator[Row]] | None = None  # in place of `read` where the text was encoded ahead, as text.encoded
    pieces: int = 0  # of what is ready
    divided: int = 0  # documents of which some is held out and some is not, of what is ready
    tokens: int = 0  # of what is ready
    documents: int = 0  # that `read` goes through at most; 0 where nobody knows

    def trained(self) -> Iterator[str]:
        return (text for _, text, held in self.read() if not held)


def of(dataset: Dataset, shelf: Shelf, blocks: range | None = None, rows: range | None = None) -> Texts:
    """The documents of a source, or of some blocks of it, or of some rows of these; empty ones are none."""

    def read() -> Iterator[tuple[str, str, bool]]:
        for number, (name, where, values, apart) in enumerate(dataset.documents(shelf, blocks, rows)):
            text = values["text"]
            if not isinstance(text, str):
                there = ", ".join([*dataset.records.columns][:8])
                why = "there is none" if text is None else f"it is of the type {type(text).__name__}"
                how = f"set data.columns.text to the column that holds the text, of {there}, or leave the record out by data.where"
                error = JobError("GTJ0113", f"the record has no text in field {dataset.roles['text']}", where=where, why=why, how=how)
                if dataset.bad is None:
                    raise error
                dataset.bad.add((-1, number), error)
                continue
            if text:
                yield name, text, apart

    count = sum(block.rows for block in dataset.records.blocks)
    return Texts(dataset.key, read, dataset.apart is not None, documents=count if blocks is None else 0)


def stdlib() -> Texts:
    """builtin:stdlib-text"""
    files = stdlib_files()
    return Texts(fingerprint(files), lambda: ((file.name, text, False) for file in files if (text := text_of(file))))


def stdlib_records() -> Iterator[tuple[str, str, Mapping[str, str], bool]]:
    """The same as records of text (see sequences.py)."""
    return ((name, f"builtin:stdlib-text, {name}", {"text": text}, apart) for name, text, apart in stdlib().read())


def text_of(file: File) -> str:
    try:
        return file.path.read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(file.path, error) from error


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


def settings(spec: Spec) -> Language:
    """Tokenizer and context length of a job on text; a custom job gets the defaults."""
    return spec.language or Language()


def by_document(spec: Spec) -> bool:
    """Whether plain text is read document by document, not as one stream."""
    own = spec.language
    return own is not None and (own.packing != "auto" or own.loss.tokens != "auto" or own.task in ("masked", "seq2seq"))


def form_of(spec: Spec) -> Format:
    """What plain text that is read by document is to a job."""
    own = settings(spec)
    return "spans" if own.span_corruption is not None else "masked" if own.task == "masked" else "text"


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


def said(size: int, files: int, documents: int, more: str = "") -> str:
    """What text there is, in a line."""
    nouns = [f"file{'s' if files != 1 else ''}", f"document{'s' if documents != 1 else ''}"]
    return f"{megabytes(size)} of text: {files:,} {nouns[0]}, {documents:,}{more} {nouns[1]}"
