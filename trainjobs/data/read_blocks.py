"""The records of a batch, read block by block, with all that they lie in taken from the shelf at once: of shards that are here, holding
each by itself, and handing it from thread to thread, takes as long as a tenth of the decoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Record, decoded, objects_of
from trainjobs.data.order import DECODED, Order
from trainjobs.data.places.in_hand import InHand
from trainjobs.data.places.place import SMALL, Object, Shelf
from trainjobs.data.places.straight import Straight
from trainjobs.data.rows import Rows

FEW = 2  # of a shard of which not even every second sample is held out, only these are fetched, as its members can be

Numbers = npt.NDArray[np.int64]
Read = tuple[Numbers, Sequence[Record | None]]


@dataclass(frozen=True, eq=False)
class Reader:
    """Of `train`, in this order, and of what is held out beside it. `fetchers` fetch side by side what is not on this machine; None: all of
    it is. `lenient`: records that are broken may be left out."""

    train: Rows
    order: Order
    shelf: Shelf
    columns: tuple[str, ...]
    fetchers: Executor | None
    lenient: bool

    def read(self, rows: Rows, numbers: Numbers) -> Iterator[Read]:
        """(places in `numbers`, the records there) of each block. None for each record of a block of which one is bad and may be left out:
        which of them it is, each by itself says."""
        blocks, own = rows.at(numbers)
        there = {int(block): np.flatnonzero(blocks == block) for block in np.unique(blocks)}

        def records(block: int, shelf: Shelf) -> Read:
            return there[block], self._records(rows, block, own[there[block]].tolist(), shelf)

        if self.fetchers is None:
            yield from (records(block, self.shelf) for block in there)
        elif self.apart:
            shelf = self._together(rows, numbers)
            yield from (records(block, shelf) for block in there)
        elif rows.records.form in DECODED:
            near = [block for block in there if decoded(rows.records, block, self.columns)]
            far = [block for block in there if block not in near]
            coming = self.fetchers.map(lambda block: records(block, self.shelf), far)
            yield from (records(block, self.shelf) for block in near)
            yield from coming
        else:
            sparse = [block for block in there if self._sparse(rows, block)]
            yield from self.fetchers.map(lambda block: records(block, Straight()), sparse)
            for part in self._parts(rows, [block for block in there if block not in sparse]):
                with ExitStack() as stack:
                    shelf = self._held(rows, part, stack)
                    yield from (records(block, shelf) for block in part)

    @cached_property
    def apart(self) -> bool:
        """Whether rows are objects of their own."""
        return self.objects(self.train, np.zeros(1, np.int64)) is not None

    def objects(self, rows: Rows, numbers: Numbers) -> list[Object] | None:
        """The small objects that rows lie in, in their order, where they lie in objects of their own."""
        found: list[Object] = []
        for block, row in zip(*(each.tolist() for each in rows.at(numbers)), strict=True):
            objects = objects_of(rows.records, block, [row], self.columns)
            if objects is None:
                return None
            found += [one for one in objects if one.path is None and one.size <= SMALL]
        return found

    def _sparse(self, rows: Rows, block: int) -> bool:
        """Whether all of a shard would be fetched for the sake of a few, in the room of those that are trained on."""
        if rows is self.train or self.order.kind == "whole" or rows.records.form != "webdataset":
            return False
        return FEW * len(rows.block(block)) < rows.records.blocks[block].rows

    def _parts(self, rows: Rows, blocks: Sequence[int]) -> Iterable[list[int]]:
        """As many blocks at a time as lie in so many shards as are mixed: a third of the cache."""
        part, objects, all_of_them = list[int](), dict[Object, None](), rows.records.blocks
        for block in blocks:
            more = all_of_them[block].objects
            if part and self.order.shards and len(objects.keys() | set(more)) > self.order.shards:
                yield part
                part, objects = [], {}
            part.append(block)
            objects |= dict.fromkeys(more)
        if part:
            yield part

    def _held(self, rows: Rows, blocks: Sequence[int], stack: ExitStack) -> Shelf:
        """The shelf, with what these blocks lie in held until the stack ends."""
        there = rows.records.blocks
        objects = [*dict.fromkeys(one for block in blocks for one in there[block].objects)]
        try:
            paths = stack.enter_context(self.shelf.hold(rows.records.place, objects))
        except JobError as error:
            if not self.lenient or error.code != "GTJ0113":
                raise
            return self.shelf  # each block by itself says what is wrong with it
        return InHand(self.shelf, {}, dict(zip(objects, paths, strict=True)))

    def _together(self, rows: Rows, numbers: Numbers) -> Shelf:
        """The shelf, with all small objects of a batch fetched side by side."""
        if not (objects := self.objects(rows, numbers)):
            return self.shelf
        try:
            return InHand.of(self.shelf, rows.records.place, objects)
        except JobError as error:
            if not self.lenient or error.code != "GTJ0113":
                raise
            return self.shelf  # each by itself says what is wrong with it

    def _records(self, rows: Rows, block: int, asked: list[int], shelf: Shelf) -> Sequence[Record | None]:
        try:
            return rows.records.read(shelf, block, asked, self.columns)
        except JobError as error:
            if not self.lenient or error.code != "GTJ0113":
                raise
            return [None] * len(asked)
