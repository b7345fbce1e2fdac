"""JSON Lines, plain or packed: one object a line, empty lines left out. Block: a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from trainjobs.api.errors import JobError
from trainjobs.data.forms.index import Arrays, Indexing, packed
from trainjobs.data.forms.lined import File, Lined, files_of
from trainjobs.data.forms.recognise import Found, columns_said, counted
from trainjobs.data.forms.records import Kind
from trainjobs.data.forms.streams import LIMITS, Limits, pieces
from trainjobs.data.forms.values import WORDS, kind_of, shown, together

_VERSION = 1
LOOKED = 256  # records of each file that say which columns there are
BLANK = b" \t\r\n"


def open_jsonl(found: Found, indexing: Indexing, limits: Limits = LIMITS) -> Lined:
    """JobError GTJ0113 for a file that is no UTF-8, or whose first records are no objects, and where two files contradict each other."""
    lenient = found.data.on_bad_sample == "skip"
    version = f"{_VERSION}, lenient" if lenient else _VERSION
    return put_together(found, files_of(found, indexing, partial(arrays_of, lenient=lenient), version, limits), limits=limits)


def arrays_of(read: Callable[[int], bytes], name: str, where: str, *, lenient: bool = False) -> Arrays:
    """The index of a file: where its records begin, and in which line; its columns by the first LOOKED of them. What cannot be read is
    found when it is, where `lenient` also what is no UTF-8."""
    starts, numbers, size = list[npt.NDArray[np.int64]](), list[npt.NDArray[np.int64]](), 0
    looked, broken = list[dict[str, Any]](), dict[str, Any]()
    for at, number, lines in pieces(read, name, where, lenient=lenient):
        data = np.frombuffer(lines, dtype=np.uint8)
        ends = np.flatnonzero(data == 10)
        begins = np.concatenate([np.zeros(1, np.int64), ends + 1])
        begins = begins[begins < len(data)]
        kept = ~np.isin(data[begins], np.frombuffer(BLANK, dtype=np.uint8))
        following = data[np.minimum(begins + 1, len(data) - 1)]
        ended = (data[begins] == 10) | ((data[begins] == 13) & (following == 10))  # as any number of lines may be
        for place in np.flatnonzero(~kept & ~ended):  # few lines begin with a space, and of those few are empty
            stop = int(begins[place + 1]) if place + 1 < len(begins) else len(data)
            kept[place] = bool(lines[int(begins[place]) : stop].strip())
        order = np.flatnonzero(kept)
        for place in order[: max(0, LOOKED - len(looked))]:
            stop = int(begins[place + 1]) if place + 1 < len(begins) else len(data)
            try:
                looked.append(record_of(lines[int(begins[place]) : stop], f"{where}:{number + int(place)}"))
            except JobError as error:
                broken = broken or error.to_dict()
        starts.append(begins[order] + at)
        numbers.append(order + number)
        size = at + len(lines)
    first = np.concatenate(starts) if starts else np.zeros(0, np.int64)
    told = {"kinds": kinds_of_records(looked), "always": sorted(always(looked)), "broken": broken}
    lines_of = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
    return {
        "rows": np.array(len(first)),
        "starts": first,
        "lines": lines_of.astype(np.uint32),
        "size": np.array(size),
        "told": packed(told),
    }


def record_of(line: bytes | str, where: str) -> dict[str, Any]:
    """JobError GTJ0113 where a line is no JSON object."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} at character {error.pos + 1} of the line" if isinstance(error, json.JSONDecodeError) else str(error)
        raise JobError("GTJ0113", "the line is not JSON", where=where, why=why, how="write one JSON object per line") from error
    if not isinstance(record, dict):
        why = f"it is {shown(record)}"
        raise JobError("GTJ0113", "the line is not a JSON object", where=where, why=why, how='write {"text": "..."}')
    return record


def kinds_of_records(records: Sequence[Mapping[str, Any]]) -> dict[str, Kind | None]:
    """None where no record has a value, or they have values of several kinds: reading says which."""
    kinds: dict[str, Kind | None] = {}
    for record in records:
        for name, value in record.items():
            kinds[name] = together(kinds.get(name), kind_of(value)) or kinds.get(name)
    return kinds


def always(records: Sequence[Mapping[str, Any]]) -> set[str]:
    """The columns that have a value in every record."""
    return set.intersection(*({name for name, value in record.items() if value is not None} for record in records)) if records else set()


def put_together(found: Found, files: Sequence[File], samples: str = "", limits: Limits = LIMITS) -> Lined:
    broken = next((file.broken for file in files if file.broken), None)
    if broken and found.data.on_bad_sample == "fail":
        raise JobError.from_dict(dict(broken))
    filled = [file for file in files if len(file.starts)]
    if not filled:
        raise found.error(
            "there is no record in the data", why="every line is empty", how='write one JSON object per line: {"text": "..."}'
        )
    kinds: dict[str, Kind] = {}
    whose: dict[str, File] = {}
    for file in filled:
        for name, kind in file.kinds.items():
            both = together(kinds.get(name), kind)
            if both is None and kind is not None:
                why = f"its {name} is {WORDS[kind]}, that of {whose[name].object.name} is {WORDS[kinds[name]]}"
                how = "write all files with one schema, or name those of one schema with a glob"
                where = found.place.where(file.object)
                raise JobError("GTJ0113", f"{file.object.name} has other columns", where=where, why=why, how=how)
            if both is not None:
                kinds[name], whose[name] = both, file
    needed = frozenset.intersection(*(file.always for file in filled))
    rows = sum(len(file.starts) for file in files)
    said = ", ".join(["jsonl", counted(len(found.objects), "file"), samples or counted(rows, "sample"), columns_said(list(kinds))])
    text = found.data.columns.text or found.data.text.field
    return Lined(found.place, found.shelf, files, kinds, needed, text, (said, *found.left_out()), "jsonl", lambda _: record_of, limits)
