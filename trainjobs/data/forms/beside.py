"""What is said of pictures beside them: `metadata.jsonl`, `.csv` or `.parquet` (the imagefolder convention of `datasets`: `file_name`, and
columns), any table whose column data.columns.image names them, a text of the same name (`photo.txt` of `photo.png`), and `dataset.json`
(StyleGAN's: {"labels": [["a.png", 0], ...]})."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainjobs.api.errors import JobError
from trainjobs.data.forms.csvs import kind_of_field, rows, value_of
from trainjobs.data.forms.footers import broken
from trainjobs.data.forms.jsonl import record_of
from trainjobs.data.forms.ranges import Ranged, reading, whole
from trainjobs.data.forms.recognise import LABELS, METADATA, Found, counted, form_of
from trainjobs.data.forms.records import Kind
from trainjobs.data.forms.streams import lines, unpacked
from trainjobs.data.forms.values import json_of, shown, together
from trainjobs.data.places.place import Object

FILE, TEXT = "file_name", ".txt"
TAKEN = ("image", "folder", "txt")  # columns that there are anyway
SHARE = 100  # one picture in so many may be left out where data.onBadSample is skip
_CHUNK = 50_000  # rows that are Python's at a time


@dataclass(frozen=True)
class Said:
    """One row, of the picture `name`; `where` is for messages."""

    where: str
    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Beside:
    """`table`: a row for each picture; `texts`: of each picture the file with its words, or () where there are none at all; `used`: the
    names of the files that belong to the pictures; `without`: numbers of the pictures of which nothing is said."""

    table: Any  # pyarrow.Table
    texts: Sequence[Object | None]
    used: frozenset[str]
    without: frozenset[int]
    words: tuple[str, ...]
    column: str = ""  # of a table that names the pictures, as data.columns.image has it


def beside(found: Found) -> Beside:
    """JobError GTJ0113 when a row has no picture, or a picture no row; where data.onBadSample is skip, of more than one in SHARE."""
    count = len(found.objects)
    others = {one.name: one for one in found.listed.objects if one.size and form_of(one.name) != "images"}
    tables = named(found, [*others.values()])
    metas = [one for name, one in others.items() if posixpath.basename(name).lower() in METADATA and one not in tables]
    folders = [posixpath.dirname(one.name) for one in metas]
    if twice := next((one for number, one in enumerate(metas) if folders[number] in folders[:number]), None):
        raise _wrong(
            found, twice, "two files say what the pictures are", "two of metadata.jsonl, .csv and .parquet lie in one folder", "keep one"
        )
    table, without, words, used = pa.table({"": pa.nulls(count)}).drop_columns([""]), set[int](), list[str](), {one.name for one in metas}
    column = found.data.columns.image or FILE
    for files, said in ((metas, _metadata(found, metas)), (tables, _metadata(found, tables, column)), *_labels(found, others)):
        if not files:
            continue
        part, lacking, more = _placed(found, files, said, some=files is tables)
        for name in part.column_names:
            if name in (*TAKEN, *table.column_names):
                why, how = "a column of this name is there already", f"call it otherwise in {files[0].name}"
                raise _wrong(found, files[0], f"the column {name} cannot be told from another", why, how)
            table = table.append_column(name, part.column(name))
        without |= lacking
        words += more
        used |= {one.name for one in files}
    texts = [others.get(posixpath.splitext(one.name)[0] + TEXT) for one in found.objects]
    if 2 * sum(text is not None for text in texts) <= count:
        texts = []  # a README beside a picture of it
    elif lacking := {number for number, text in enumerate(texts) if text is None}:
        first, text = found.objects[min(lacking)], posixpath.splitext(found.objects[min(lacking)].name)[0] + TEXT
        words += _lacking(found, first, lacking, f"no {posixpath.basename(text)} beside it")
        without |= lacking
    used |= {text.name for text in texts if text is not None}
    return Beside(table, texts, frozenset(used), frozenset(without), tuple(words), column if tables else "")


def named(found: Found, others: Sequence[Object]) -> list[Object]:
    """The tables beside the pictures that have the column by which data.columns.image says that they are named."""
    column = found.data.columns.image
    if column is None:
        return []
    return [one for one in others if form_of(one.name) in _TABLES and column in next((values for _, values in _rows(found, one)), ())]


def _rows(found: Found, one: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    return _TABLES[str(form_of(one.name))](found, one)


def _metadata(found: Found, metas: Sequence[Object], column: str = FILE) -> Iterator[Said]:
    for one in metas:
        folder = posixpath.dirname(one.name)
        for where, values in _rows(found, one):
            name = values.pop(column, None)
            name = name.get("path") if isinstance(name, dict) else name  # as `datasets` writes pictures that lie elsewhere
            if not isinstance(name, str) or not name:
                why = f"its columns are {', '.join(values) or 'none'}" if name is None else f"{column} is {shown(name)}"
                how = f"name the picture in {column}, as it is seen from this file"
                raise _wrong(found, one, f"the row has no {column}", why, how, where)
            path = posixpath.normpath(posixpath.join(folder, name))
            if path.startswith("/") or path.split("/")[0] == "..":
                how = "name pictures that lie in the data, as they are seen from this file; or name a folder above as data.source"
                raise _wrong(found, one, "a row names a picture outside of the data", f"{column} is {shown(name)}", how, where)
            yield Said(where, path, values)


def _jsonl(found: Found, one: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    place = found.place
    with found.shelf.hold(place, [one]) as paths, unpacked(place, one, paths[0]) as read:
        for _, number, line in lines(read, one.name, place.where(one)):
            if line.strip():
                where = f"{place.where(one)}:{number}"
                yield where, record_of(line, where)


def _csv(found: Found, one: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    place = found.place
    with found.shelf.hold(place, [one]) as paths, unpacked(place, one, paths[0]) as read:
        there = list(rows(read, one.name, place.where(one)))
    header, kinds = (there[0].fields if there else ()), dict[str, Kind]()
    for row in there[1:]:
        for name, text in zip(header, row.fields, strict=True):
            if name != FILE and (kind := kind_of_field(text)) is not None:
                kinds[name] = together(kinds.get(name), kind) or "text"
    for row in there[1:]:
        values = zip(header, row.fields, strict=True)
        yield f"{place.where(one)}:{row.line}", {name: value_of(text, kinds.get(name, "text")) for name, text in values}


def _parquet(found: Found, one: Object) -> Iterator[tuple[str, dict[str, Any]]]:
    place = found.place
    with found.shelf.hold(place, [one]) as paths, reading(place, one, paths[0]) as read:
        try:
            with pq.ParquetFile(Ranged(read, one.size)) as file:
                number = 0
                for batch in file.iter_batches(use_threads=False):
                    for values in batch.to_pylist():
                        yield f"{place.where(one)}, row {number:,}", values
                        number += 1
        except (pa.ArrowException, OSError) as error:
            raise broken(place.where(one), one.name, error) from error


_TABLES: Mapping[str, Callable[[Found, Object], Iterator[tuple[str, dict[str, Any]]]]] = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}


def _labels(found: Found, others: Mapping[str, Object]) -> Iterator[tuple[list[Object], Iterator[Said]]]:
    if (one := others.get(LABELS)) is None:
        return
    with found.shelf.hold(found.place, [one]) as paths:
        told = json_of(whole(found.place, one, paths[0]), found.place.where(one))
    pairs = told.get("labels") if isinstance(told, dict) else None
    if not pairs:
        return  # StyleGAN writes null where there are none; another dataset.json is none of ours
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    where = found.place.where(one)
    wrong = next((pair for pair in pairs if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str))), None)
    if wrong is not None:
        why = f"one of them is {shown(wrong)}"
        raise _wrong(found, one, "the labels are no pairs", why, 'write {"labels": [["a.png", 0], ...]}')
    yield [one], (Said(f"{where}: {name}", posixpath.normpath(name.replace("\\", "/")), {"label": label}) for name, label in pairs)


def _placed(found: Found, files: Sequence[Object], said: Iterator[Said], *, some: bool = False) -> tuple[Any, set[int], list[str]]:
    """(a table with a row for each picture, numbers of pictures without a row, what is to be told). `some`: the rows say which pictures
    are meant."""
    numbers = {one.name: number for number, one in enumerate(found.objects)}
    tables, chunk, row_of, strays = list[Any](), list[Mapping[str, Any]](), dict[int, int](), list[Said]()
    for row in said:
        number = numbers.get(row.name)
        if number is None:
            strays.append(row)
            continue
        if number in row_of:
            raise _wrong(found, files[0], f"{row.name} has two rows", f"the second is {row.where}", "keep one of them", row.where)
        row_of[number] = len(row_of)
        chunk.append(row.values)
        if len(chunk) == _CHUNK:
            tables.append(_table(found, files[0], chunk))
            chunk = []
    tables.append(_table(found, files[0], chunk))
    words = list[str]()
    if strays:
        words += _strays(found, files[0], strays, len(row_of))
    lacking = set(range(len(numbers))) - row_of.keys()
    if lacking and some:
        words.append(f"{counted(len(lacking), 'picture')} left out that no row of {', '.join(one.name for one in files[:3])} names")
    elif lacking:
        words += _lacking(found, found.objects[min(lacking)], lacking, f"no row in {files[0].name if len(files) == 1 else 'the metadata'}")
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise _wrong(found, files[0], "a column has values of several kinds", str(error)[:200], "write one kind in each column") from error
    return table.take(pa.array([row_of.get(number) for number in range(len(numbers))], pa.int64())), lacking, words


def _table(found: Found, one: Object, chunk: Sequence[Mapping[str, Any]]) -> Any:
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in chunk for name in row):
        try:
            columns[name] = pa.array([row.get(name) for row in chunk])
        except (pa.ArrowException, OverflowError) as error:
            what = f"the column {name} has values of several kinds"
            raise _wrong(found, one, what, " ".join(str(error).split())[:200], "write one kind in each column") from error
    return pa.table(columns)


def _strays(found: Found, one: Object, strays: Sequence[Said], good: int) -> list[str]:
    first, count = strays[0], len(strays)
    if found.data.on_bad_sample == "skip" and count * SHARE <= count + good:
        return [f"{counted(count, 'row')} without a picture left out, the first for {first.name}"]
    more = f", and {counted(count - 1, 'row')} more" if count > 1 else ""
    what = f"there is no picture {first.name}, which a row names{more}"
    raise _wrong(found, one, what, f"{good:,} rows have one", "add the pictures, or take the rows out", first.where)


def _lacking(found: Found, first: Object, lacking: set[int], why: str) -> list[str]:
    count, all_of_them = len(lacking), len(found.objects)
    if found.data.on_bad_sample == "skip" and count * SHARE <= all_of_them:
        return [f"{counted(count, 'picture')} without words left out, the first {first.name}"]
    more = f", and nothing of {counted(count - 1, 'other')}" if count > 1 else ""
    how = "add what is missing, or take the pictures out"
    raise _wrong(found, first, f"nothing is said of {first.name}{more}", f"there is {why}; {all_of_them - count:,} pictures have one", how)


def _wrong(found: Found, one: Object, what: str, why: str, how: str, where: str = "") -> JobError:
    return JobError("GTJ0113", what, where=where or found.place.where(one), why=why, how=how)
