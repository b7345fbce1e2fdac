"""CSV and TSV, plain or packed: a header, then rows, quoted as RFC 4180 says, also with line ends in them. Block: a file.

The kind of a column is that of all its values: whole numbers, numbers, or text; an empty field is no value. "007" is text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from trainjobs.api.errors import JobError
from trainjobs.data.forms.index import Arrays, Indexing, packed
from trainjobs.data.forms.lined import File, Lined, Parse, files_of
from trainjobs.data.forms.recognise import Found, columns_said, counted
from trainjobs.data.forms.records import Kind
from trainjobs.data.forms.streams import LIMITS, LONGEST, Limits, lines
from trainjobs.data.forms.values import together

VERSION = 1
_NO_TEXT = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})$")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$")
csv.field_size_limit(LONGEST)  # of the process; documents are longer than the module expects


def open_csv(found: Found, indexing: Indexing, limits: Limits = LIMITS) -> Lined:
    """JobError GTJ0113 for a file that is no UTF-8 or no CSV, and where two files have other columns."""
    lenient = found.data.on_bad_sample == "skip"
    version = f"{VERSION}, lenient" if lenient else VERSION
    return put_together(found, files_of(found, indexing, partial(arrays_of, lenient=lenient), version, limits), limits=limits)


def put_together(found: Found, files: Sequence[File], samples: str = "", limits: Limits = LIMITS) -> Lined:
    first = files[0]
    for file in files[1:]:
        if list(file.kinds) != list(first.kinds):
            theirs, ours = (columns_said(list(one.kinds)) or "none" for one in (file, first))
            why = f"they are {theirs}; those of {first.object.name} are {ours}"
            how = "write all files with one header, or name those of one header with a glob"
            what = f"{file.object.name} has other columns"
            raise JobError("GTJ0113", what, where=found.place.where(file.object), why=why, how=how)
    rows = sum(len(file.starts) for file in files)
    if not rows:
        raise found.error("there is no row in the data", why=f"{counted(len(files), 'file')}, with a header at most", how="put data there")
    kinds: dict[str, Kind] = {}
    for file in files:
        for name, kind in file.kinds.items():
            kinds[name] = together(kinds.get(name), kind) or ("text" if kind else kinds.get(name, "text"))
    said = ", ".join(["csv", counted(len(found.objects), "file"), samples or counted(rows, "sample"), columns_said(list(kinds))])
    text = found.data.columns.text or found.data.text.field
    header = list(kinds)

    def parse(file: File) -> Parse:
        return lambda line, where: record_of(line, where, header, kinds, comma(file.object.name))

    return Lined(found.place, found.shelf, files, kinds, frozenset(), text, (said, *found.left_out()), "csv", parse, limits)


def comma(name: str) -> str:
    return "\t" if ".tsv" in name.lower() else ","


def kind_of_field(text: str) -> Kind | None:
    if not text:
        return None
    if _INTEGER.match(text):
        return "integer"
    number = _NUMBER.match(text) and not re.match(r"[+-]?0[0-9]", text) and not text.startswith("+")
    return "number" if number else "text"


@dataclass(frozen=True)
class Row:
    """A row of a file: the byte at which it begins, the line, and its fields, as many as there are names in the header."""

    start: int
    stop: int
    line: int
    fields: Sequence[str]
    broken: bool = False


def rows(read: Callable[[int], bytes], name: str, where: str, *, whole: bool = True, lenient: bool = False) -> Iterator[Row]:
    """The header, then every row; empty lines are left out. Of what is not
    `whole` the last row may end amid it, and is left out. JobError GTJ0113 where a row has another number of fields than the header, or
    is no UTF-8; where that is `lenient` the row is `broken`. Whose quotes have no end is an error all the same: nobody knows where it ends.
    """
    stop, number = 0, 0

    def numbered() -> Iterator[str]:
        nonlocal stop, number
        for start, at, line in lines(read, name, where, lenient=lenient):
            stop, number = start + len(line.encode(errors="surrogateescape")), at
            yield line

    header = 0
    at, begun, reader = 0, 1, csv.reader(numbered(), delimiter=comma(name), strict=True)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not whole and "unexpected end" in str(error):
                return
            if lenient and header and "unexpected end" not in str(error):
                yield Row(at, stop, begun, (), broken=True)
                at, begun = stop, number + 1
                continue
            how = "quote fields as RFC 4180 says: a quote within quotes is doubled"
            raise JobError("GTJ0113", "the row is not CSV", where=f"{where}:{begun}", why=str(error), how=how) from error
        if len(fields) > 1 or (fields and fields[0].strip()):
            if not header:
                fields = _header(fields, f"{where}:{begun}", comma(name))
                header = len(fields)
            elif lenient and (len(fields) != header or _NO_TEXT.search("".join(fields))):
                yield Row(at, stop, begun, (), broken=True)
                at, begun = stop, number + 1
                continue
            elif len(fields) != header:
                why = f"the header names {counted(header, 'column')}"
                how = "mend the row; a field that holds a comma, a quote or a line's end is quoted"
                raise JobError("GTJ0113", f"the row has {counted(len(fields), 'field')}", where=f"{where}:{begun}", why=why, how=how)
            yield Row(at, stop, begun, fields)
        at, begun = stop, number + 1


def arrays_of(read: Callable[[int], bytes], name: str, where: str, *, whole: bool = True, lenient: bool = False) -> Arrays:
    """The index of a file: where its rows begin, and what kind each column is by all of its values. Rows that are broken have no values."""
    starts, numbers, stop = list[int](), list[int](), 0
    header, kinds = list[str](), list[Kind | None]()
    for row in rows(read, name, where, whole=whole, lenient=lenient):
        stop = row.stop
        if not header:
            header, kinds = list(row.fields), [None] * len(row.fields)
            continue
        starts.append(row.start)
        numbers.append(row.line)
        for place, text in enumerate(row.fields):
            if kinds[place] != "text" and (kind := kind_of_field(text)) is not None:
                kinds[place] = together(kinds[place], kind) or "text"
    told = {"kinds": dict(zip(header, kinds, strict=True)), "always": [], "broken": {}}
    return {
        "rows": np.array(len(starts)),
        "starts": np.array(starts, dtype=np.int64),
        "lines": np.array(numbers, dtype=np.uint32),
        "size": np.array(stop),
        "told": packed(told),
    }


def _header(row: Sequence[str], where: str, delimiter: str) -> list[str]:
    names = [name.strip() for name in row]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None or not all(names):
        why = f"the header has {twice} twice" if twice else f"column {names.index('') + 1} of the header has no name"
        raise JobError("GTJ0113", "the first line is no header", where=where, why=why, how="begin the file with a line of names")
    other = next((mark for mark in (";", "\t", "|", ",") if mark != delimiter and mark in names[0]), "")
    if len(names) == 1 and other:
        why = f"its one column would be {names[0][:60]}"
        how = "separate fields by commas in .csv, by tabs in .tsv"
        raise JobError("GTJ0113", "the file is separated by something else", where=where, why=why, how=how)
    return names


def record_of(line: bytes, where: str, header: Sequence[str], kinds: Mapping[str, Kind], delimiter: str) -> dict[str, Any]:
    """The fields of a row, each of its column's kind."""
    try:
        row = next(csv.reader([line.decode().rstrip("\r\n")], delimiter=delimiter, strict=True))
        return {name: value_of(text, kinds[name]) for name, text in zip(header, row, strict=True)}
    except (csv.Error, ValueError) as error:
        raise JobError("GTJ0113", "the row is not CSV", where=where, why=str(error), how="train when the file is written") from error


def value_of(text: str, kind: Kind) -> Any:
    if not text:
        return None
    return int(text) if kind == "integer" else float(text) if kind == "number" else text
