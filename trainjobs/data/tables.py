"""Pictures from wherever they lie, as a Source.

What is little is decoded once, into a table that is mapped into memory; of everything else batches are read and decoded as they come.
Which of the two changes no sample: order, held-out rows and pixels are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.data.bucketed import bucketed, ordered
from trainjobs.data.captions import LONGEST
from trainjobs.data.conditions import Conditions, captioned
from trainjobs.data.curriculum import numbers_of
from trainjobs.data.dataset import Dataset, Reading, encoded
from trainjobs.data.files import fingerprinted
from trainjobs.data.forms.chosen import column_of
from trainjobs.data.forms.records import Record
from trainjobs.data.images import read
from trainjobs.data.order import Order, chosen
from trainjobs.data.pictures import Picture, Seen
from trainjobs.data.pixels import ImageSource, table
from trainjobs.data.places.place import Shelf
from trainjobs.data.rows import Rows
from trainjobs.data.source import Source, none_left
from trainjobs.data.streamed import StreamedImages

AT_ONCE = 1 << 30  # bytes of encoded pictures that are decoded before the first step, instead of beside it
SHOWN = 5  # classes in a message
_BLOCK = 1024  # pictures in memory while a table is written
VERSION = 3  # of what `read` makes; part of the table's name


def open_images(dataset: Dataset, reading: Reading, number: int, caption: int = LONGEST) -> Source:
    """Source `number` of the job; captions are `caption` bytes long at most. JobErrors as of Dataset and `read`."""
    data = dataset.data
    limit = reading.limit(data) // len(data.parts)  # which the sources of a mixture share
    train, held = dataset.sides(reading)
    if not len(train):
        raise none_left(len(held), data.holdout, dataset.found.uri, "images")
    begun = reading.kept[number] if number < len(reading.kept) else None
    kept = Order.from_dict(begun) if begun else None
    order = kept if kept and kept.kind != "buckets" else chosen(train, limit, dataset.found.uri)
    pixels = (len(train) + len(held)) * data.images.channels * data.images.size**2
    little = dataset.size <= AT_ONCE and 2 * pixels <= limit and order.kind == "whole" and data.on_bad_sample == "fail"
    little = little and data.images.buckets is None
    shelf = reading.shelf(data, derived=little)
    ease = _difficulty(dataset, shelf, train)
    if little:
        source = _table(dataset, reading, shelf, train, held, caption)
        return replace(source, info=replace(source.info, orders=(order.to_dict(),), difficulty=ease))
    classes = dataset.classes(shelf, reading)
    numbers = classes.numbers if classes else None
    roles, bad = dataset.roles, dataset.bad
    streamed = StreamedImages.of(train, held, order, data, shelf, roles, classes=numbers, caption=caption, bad=bad, pin=reading.pin)
    info = replace(streamed.info, classes=classes.names if classes else (), orders=(order.to_dict(),), difficulty=ease)
    if data.images.buckets is None:
        return replace(streamed, info=info)
    shaped = ordered(kept, order, reading.unit, dataset.found.uri)
    made = bucketed(streamed, dataset, reading, shaped.window)
    told = replace(info, orders=(shaped.to_dict(),), note=made.places.said)
    return replace(made, square=replace(streamed, info=told))


def _table(dataset: Dataset, reading: Reading, shelf: Shelf, train: Rows, held: Rows, caption: int) -> ImageSource:
    records, images = dataset.records, dataset.data.images
    count = sum(block.rows for block in records.blocks)
    name = fingerprinted([dataset.key], version=VERSION, size=images.size, channels=images.channels)
    pixels = table(reading.cache / f"images-{name}.npy", count, images, lambda: _decoded(dataset, shelf))
    begins = torch.tensor(np.cumsum([0, *(block.rows for block in records.blocks)])[:-1], dtype=torch.int64)
    beside = _conditions(dataset, reading, shelf, caption)
    source = ImageSource.divided(pixels, dataset.data, _flat(train, begins), _flat(held, begins), beside)

    def called(row: int) -> str:
        block = int(torch.searchsorted(begins, row, right=True)) - 1
        return records.names(block)[row - int(begins[block])]

    return replace(source, called=called)


def _difficulty(dataset: Dataset, shelf: Shelf, train: Rows) -> Tensor | None:
    """float64 [training samples], in the order of blocks and rows; None without a curriculum by a column."""
    curriculum, records = dataset.data.curriculum, dataset.records
    if curriculum is None or curriculum.by != "column":
        return None
    column = str(curriculum.column)
    if column not in records.columns:
        how = did_you_mean(column, records.columns) or f"its columns: {', '.join(records.columns)}"
        raise JobError("GTJ0108", f"the data has no column {column}", where="data.curriculum.column", how=how)
    found = list[object]()
    for block, length in enumerate(train.lengths.tolist()):
        if length:
            values = column_of(records, shelf, block, column)
            found += [values[row] for row in train.block(block).tolist()]
    return numbers_of(found, column, dataset.found.uri)


def _flat(rows: Rows, begins: Tensor) -> Tensor:
    """int64: numbers of rows, counted through all blocks."""
    return torch.from_numpy(rows.numbers.astype(np.int64)) + begins.repeat_interleave(torch.from_numpy(rows.lengths))


def _conditions(dataset: Dataset, reading: Reading, shelf: Shelf, caption: int) -> Conditions:
    label, names, text, starts = None, tuple[str, ...](), None, None
    if (classes := dataset.classes(shelf, reading)) is not None:
        label = torch.tensor([classes.numbers[value] for value in dataset.column("label", shelf)], dtype=torch.int64)
        names = classes.names
        refuse_lone(torch.bincount(label, minlength=len(names)).tolist(), names, dataset.found.uri)
    if "caption" in dataset.roles:
        of = (name for block in range(len(dataset.records.blocks)) for name in dataset.records.names(block))
        text, starts = captioned(dataset.column("caption", shelf), of, dataset.found.uri, caption)
    return Conditions(label, names, text, starts, caption)


def refuse_lone(counts: Sequence[int], names: Sequence[str], where: str) -> None:
    """JobError GTJ0113 for a class of one picture, of how many each class has."""
    lone = [name for count, name in zip(counts, names, strict=True) if count == 1]
    if lone:
        what = f"class {lone[0]} has one picture"
        why = f"of {len(names)} classes {len(lone)} have one: {listed(lone[:SHOWN], 'and')}" if len(lone) > 1 else "all others have more"
        why += "; that it shares with none, so the model learns that picture by heart, or nothing where it is held out"
        raise JobError("GTJ0113", what, where=where, why=why, how="add pictures, or take the class out by data.where")


def _decoded(dataset: Dataset, shelf: Shelf) -> Iterator[npt.NDArray[np.uint8]]:
    """The pixels of every row, in order, on all cores: Pillow works outside the interpreter's lock.

    JobError GTJ0113, also at the end, when there is nothing to be seen in all of them."""
    images, column, seen = dataset.data.images, dataset.roles["image"], Seen()
    pool = ThreadPoolExecutor(os.cpu_count())

    def picture(record: Record) -> Picture:
        return read(encoded(record, column), images.size, images.channels, record.where)

    try:
        for number, block in enumerate(dataset.records.blocks):
            for start in range(0, block.rows, _BLOCK):
                rows = dataset.records.read(shelf, number, range(start, min(start + _BLOCK, block.rows)), [column])
                for record, made in zip(rows, pool.map(picture, rows), strict=True):
                    seen.add(record.where, made)
                    yield made.pixels
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops waits for one picture, not for a thousand
    seen.end(dataset.found.uri)
