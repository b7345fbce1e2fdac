"""Pictures of several shapes as a source: training batches are of one shape each, and everything else sees them as squares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.data.buckets import FIELD, Bucketed, Shape, nearest, shapes
from trainjobs.data.dataset import Dataset, Reading, encoded
from trainjobs.data.forms.chosen import key_of_block
from trainjobs.data.forms.index import Arrays, Indexing
from trainjobs.data.images import sides
from trainjobs.data.order import Order
from trainjobs.data.places.place import Shelf
from trainjobs.data.rows import Numbers, Rows
from trainjobs.data.source import DataInfo, Source
from trainjobs.data.streamed import StreamedImages
from trainjobs.noise import Noise

_AT_ONCE = 64  # pictures that are read together, to look at their heads
VERSION = 1  # of what is found out about a block


@dataclass(frozen=True, eq=False)
class BucketedImages:
    """`square` reads the pictures; `places` are their shapes and their order."""

    square: StreamedImages
    places: Bucketed

    @property
    def info(self) -> DataInfo:
        return self.square.info

    @property
    def squares(self) -> Source:
        return self.square

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        return self.made(self.rows(positions, seed), noise)

    def rows(self, positions: Tensor, seed: int) -> dict[str, Tensor]:
        shape = self.places.shape(positions, seed)
        return self.square.read_at(self.places.numbers(positions, seed), shape)

    def made(self, rows: Mapping[str, Tensor], noise: Noise) -> dict[str, Tensor]:
        return self.square.made(rows, noise)

    def coming(self, positions: Tensor, seed: int) -> None:
        self.square.coming_at(self.places.numbers(positions, seed))

    def close(self) -> None:
        self.square.close()

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self.square.heldout_batch(indices)

    def numbers(self, positions: Tensor, seed: int) -> Tensor:
        return torch.from_numpy(self.places.numbers(positions, seed))

    def plain(self, numbers: Tensor, *, held: bool) -> dict[str, Tensor]:
        return self.square.plain(numbers, held=held)

    def whole(self, numbers: Tensor) -> dict[str, Tensor]:
        """Training samples of one shape as `plain` gives them, in that shape."""
        (which,) = np.unique(self.places.which[numbers.numpy()]).tolist()
        return self.square.plain(numbers, held=False, shape=self.places.shapes[which])

    def names(self, numbers: Tensor, *, held: bool) -> list[str]:
        return self.square.names(numbers, held=held)

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        return self.square.conditions(rows)


def ordered(kept: Order | None, found: Order, unit: int, where: str) -> Order:
    """The order of pictures in buckets: that which the run began with, or one of such units. JobError GTJ0108 for data that is not all on
    the machine."""
    if found.kind == "blocks":
        why = "its pictures are read shard by shard, and those of one shape lie in all of them"
        raise JobError(
            "GTJ0108",
            "there is too much data for buckets",
            where=FIELD,
            why=why,
            how=f"raise data.cache, or take buckets out; it is {where}",
        )
    return kept if kept is not None and kept.kind == "buckets" else Order("buckets", unit)


def bucketed(source: StreamedImages, dataset: Dataset, reading: Reading, unit: int) -> BucketedImages:
    return BucketedImages(source, assigned(source.train, dataset, reading, source.shelf, unit))


def assigned(train: Rows, dataset: Dataset, reading: Reading, shelf: Shelf, unit: int) -> Bucketed:
    """The shapes of training samples. Each picture's head is looked at, once for all runs with that cache."""
    images = dataset.data.images
    assert images.buckets is not None
    every = tuple(shapes(images.size, images.buckets))
    return Bucketed(every, nearest(sizes(train, dataset, reading, shelf), every), unit)


def sizes(train: Rows, dataset: Dataset, reading: Reading, shelf: Shelf) -> Numbers:
    """int64 [training samples, 2]: width and height as they are shown, upright. JobError GTJ0113 for what is no picture."""
    records, column = dataset.records, dataset.roles["image"]

    def looked(block: int) -> Arrays:
        found: list[Shape] = []
        for start in range(0, records.blocks[block].rows, _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, records.blocks[block].rows))
            found += [sides(encoded(record, column), record.where) for record in records.read(shelf, block, rows, [column])]
        return {"rows": np.array(len(found)), "sizes": np.array(found, np.int64).reshape(-1, 2)}

    keys = [key_of_block(records, block, "sizes", VERSION, column) for block in range(len(records.blocks))]
    whole = Indexing(reading.cache, reading.ranks, reading.say).of(keys, looked, "parts' shapes of pictures")
    parts = [arrays["sizes"][train.block(block)] for block, arrays in enumerate(whole)]
    return np.concatenate([np.empty((0, 2), np.int64), *parts])
