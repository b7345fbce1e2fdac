"""Which form data is written in, by the names of its files."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.data.files import Listing, most
from trainjobs.data.images import SUFFIXES as IMAGES
from trainjobs.data.places.place import Listed, Object, Place, Shelf

Wants = Literal["image", "text", ""]  # what a family learns from, where that is known

SUFFIXES = {
    "images": IMAGES,
    "webdataset": (".tar",),
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson", ".json-lines", ".jsonlines"),
    "csv": (".csv", ".tsv"),
    "text": (".txt", ".md", ".py"),
}
PACKED = (".gz", ".zst")  # of the forms of text
_TEXTUAL = ("jsonl", "csv", "text")
_PACKED_TARS = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
LABELS = "dataset.json"


def form_of(name: str) -> str | None:
    """The form that a file's name says; None of another kind."""
    base, suffix = posixpath.splitext(name.rstrip("/").lower())  # of millions of names, those of pathlib take most of the time
    if suffix not in PACKED:
        return next((form for form in SUFFIXES if suffix in SUFFIXES[form]), None)
    suffix = posixpath.splitext(base)[1]
    return next((form for form in _TEXTUAL if suffix in SUFFIXES[form]), None)


def recognise(listed: Listed, data: Data, where: str = "", wants: Wants = "") -> str:
    """images, webdataset, parquet, jsonl, csv or text. Plain text beside another form is left out, as are files of other kinds; what lies
    beside pictures and says something of them belongs to them. Where pictures and text lie side by side, `wants` chooses.

    JobError GTJ0113 when there is nothing that can be read, or two forms of which nobody says which is meant.
    """
    where = where or (data.uri if data.source or data.sources else "")
    counts = Counter(form for found in listed.objects if found.size and (form := form_of(found.name)) is not None)
    if data.format != "auto":
        if not counts[data.format]:
            how = f"its files end in {' '.join(SUFFIXES[data.format])}; set data.format to what is there, or to auto"
            raise JobError("GTJ0113", f"there is no {data.format} in the data", where=where, why=_there(listed), how=how)
        return data.format
    if counts["images"]:
        counts["jsonl"] -= _named(listed, METADATA[0])
        counts["csv"] -= _named(listed, METADATA[1])
        counts["parquet"] -= _named(listed, METADATA[2])
    forms = [form for form, count in counts.most_common() if count > 0 and form != "text"]
    if wants == "text" and any(form in _TEXTUAL for form in forms):
        forms = [form for form in forms if form != "images"]
    elif wants == "image" and "images" in forms:
        forms = [form for form in forms if form not in _TEXTUAL]
    if wants == "text" and forms == ["images"] and counts["text"]:
        return "text"
    if wants == "image" and forms and all(form in _TEXTUAL for form in forms):
        raise _without("images", listed, where)
    if wants == "text" and forms == ["images"]:
        raise _without("text", listed, where)
    if len(forms) > 1:
        found = ", ".join(f"{counts[form]:,} × {form}" for form in forms)
        how = f"set data.format to one of {', '.join(forms)}, or name one folder or a glob of one kind"
        raise JobError("GTJ0113", "the data is written in several forms", where=where, why=f"found {found}", how=how)
    if forms:
        return forms[0]
    if counts["text"] and wants == "image":
        raise _without("images", listed, where)
    if counts["text"]:
        return "text"
    raise _nothing(listed, where)


@dataclass(frozen=True)
class Found:
    """The objects of one form at a place, and the others as counts."""

    form: str
    place: Place
    listed: Listed
    objects: tuple[Object, ...]
    others: Counter[str]
    data: Data
    shelf: Shelf

    def left_out(self) -> Iterator[str]:
        """For the line that says what was found: "2 .avif, 1 pipe left out"."""
        others = Counter({name: count for name, count in self.listed.others.items() if _matters(name, self.form)})
        return Listing((), self.others + others, self.listed.folders, self.listed.loops).words()

    def error(self, what: str, *, why: str, how: str) -> JobError:
        return JobError("GTJ0113", what, where=self.place.uri, why=why, how=how)


def find(place: Place, listed: Listed, data: Data, shelf: Shelf, wants: Wants = "") -> Found:
    """What `recognise` says, with the objects."""
    form = recognise(listed, data, place.uri, wants)
    return Found(form, place, listed, *parted(listed, form), data, shelf)


def parted(listed: Listed, form: str) -> tuple[tuple[Object, ...], Counter[str]]:
    """The objects of a form, and the others as counts. An object without a byte is of none."""
    mine, others = list[Object](), Counter[str]()
    for found in listed.objects:
        if found.size and form_of(found.name) == form:
            mine.append(found)
        elif found.size:
            others[suffix_of(found.name)] += 1
    others["empty"] += sum(not found.size for found in listed.objects)
    return tuple(mine), +others


def counted(number: int, noun: str) -> str:
    """ "1 shard", "1,281,167 samples"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def columns_said(columns: Sequence[str]) -> str:
    """ "jpg + cls", and of many the first eight."""
    return " + ".join(columns[:8]) + (f" and {len(columns) - 8} more columns" if len(columns) > 8 else "")


def _matters(left_out: str, form: str) -> bool:
    """Whether it is told: of hidden files those that would be read if they were not."""
    kind, _, suffix = left_out.partition(" ")
    return kind != "hidden" or form_of(f"a{suffix}") == form


def _named(listed: Listed, name: str) -> int:
    return sum(found.name[-len(name) :].lower() == name and posixpath.basename(found.name).lower() == name for found in listed.objects)


def suffix_of(name: str) -> str:
    """As it is counted among what is left out."""
    lower = PurePosixPath(name).name.lower()
    whole = next((suffix for suffix in _PACKED_TARS if lower.endswith(suffix)), "")
    return whole or PurePosixPath(lower).suffix or "no suffix"


def _there(listed: Listed) -> str:
    counts = Counter(suffix_of(found.name) for found in listed.objects)
    return f"found {', '.join(f'{count:,} × {name}' for name, count in most(counts, 'of other kinds'))}" if counts else "it is empty"


def _without(noun: str, listed: Listed, where: str) -> JobError:
    forms = ("images", "webdataset", "parquet") if noun == "images" else ("text", "jsonl", "csv", "parquet", "webdataset")
    known = " ".join(suffix for form in forms for suffix in SUFFIXES[form])
    return JobError("GTJ0113", f"the data holds no {noun}", where=where, why=_there(listed), how=f"known are {known}")


def _nothing(listed: Listed, where: str) -> JobError:
    if not listed.objects and not listed.others:
        folders = f"but for {', '.join(sorted(listed.folders))}, which are left out" if listed.folders else ""
        return JobError("GTJ0113", "the folder is empty", where=where, why=folders, how="put data there, or mend data.source")
    packed = Counter(suffix for found in listed.objects if (suffix := suffix_of(found.name)) in _PACKED_TARS)
    if packed:
        how = "unpack each to a plain .tar: pictures hardly get smaller by packing"
        why = f"found {', '.join(f'{count:,} × {name}' for name, count in packed.items())}: a packed archive has no beginnings to jump to"
        return JobError("GTJ0113", "packed tar archives cannot be read", where=where, why=why, how=how)
    if listed.objects and not any(found.size for found in listed.objects):
        why = f"{counted(len(listed.objects), 'file')}, none with a byte in it"
        return JobError("GTJ0113", "the data is empty", where=where, why=why, how="put data there, or mend data.source")
    known = " ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    how = f"known are {known}; .json is read as JSON Lines: jq -c '.[]'" if ".json" in _there(listed) else f"known are {known}"
    return JobError("GTJ0113", "the data is in no form that can be read", where=where, why=_there(listed), how=how)
