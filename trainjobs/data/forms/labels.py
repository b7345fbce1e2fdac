"""The classes of a data set: the names that it gives them itself, else every value that its label has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.data.forms.chosen import Chosen, column_of, distinct
from trainjobs.data.forms.index import Indexing, silent
from trainjobs.data.forms.parquet import Parquet
from trainjobs.data.forms.records import Records
from trainjobs.data.forms.roles import Classes, classes
from trainjobs.data.merged import Merged
from trainjobs.data.places.place import ALONE, Ranks, Shelf


def classes_of(
    records: Records,
    column: str,
    shelf: Shelf,
    cache: Path,
    ranks: Ranks = ALONE,
    *,
    say: Callable[[str], None] = silent,
    clock: Callable[[], float] = time.monotonic,
    lenient: bool = False,
) -> Classes:
    """Of the column that is the label (`folder` where data.labels is folder). Where the data names its classes, nothing is read, and a
    number that has no name is found when its sample is; else all ranks together look at every value, once. Where that is `lenient`, labels
    that are not there or cannot be read are found when their samples are.

    JobError GTJ0113 as of roles.classes."""
    names = names_of(records, column)
    values = [] if names is not None else distinct(records, column, shelf, Indexing(cache, ranks, say, clock), lenient=lenient)
    if None in values and not lenient:
        raise unlabelled(records, column, shelf)
    return classes(values, column, records.place.uri, names)


def unlabelled(records: Records, column: str, shelf: Shelf) -> JobError:
    """GTJ0113, which names the first sample without a label, and says how many there are."""
    first, count, total = "", 0, 0
    for block in range(len(records.blocks)):
        names = records.names(block)
        for row, value in enumerate(column_of(records, shelf, block, column)):
            total += 1
            if value is None:
                first, count = first or names[row], count + 1
    why = f"{count} of {total}, the first is {first}"
    how = "label each, take those without out with data.where, or give them a class of their own"
    return JobError("GTJ0113", f"samples have no {column}", where=records.place.uri, why=why, how=how)


def names_of(records: Records, column: str) -> Sequence[str] | None:
    """As Hugging Face's ClassLabel writes them into Parquet."""
    if isinstance(records, Chosen):
        return names_of(records.records, column)
    if isinstance(records, Merged):
        return names_of(records.parts[0], column)
    return records.classes.get(column) if isinstance(records, Parquet) else None
