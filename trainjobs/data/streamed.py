"""Pictures that are never held whole, neither in memory nor, where they are fetched, on disk: read and decoded batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainjobs.api.data import Data, Images
from trainjobs.api.errors import JobError
from trainjobs.data.augment import augmented
from trainjobs.data.bad import BadSamples
from trainjobs.data.captions import LONGEST, tokens
from trainjobs.data.dataset import encoded
from trainjobs.data.forms.records import Record, Value
from trainjobs.data.images import decode
from trainjobs.data.order import Order, Places
from trainjobs.data.pixels import scaled
from trainjobs.data.places.place import Shelf
from trainjobs.data.read_blocks import Reader
from trainjobs.data.rows import Rows
from trainjobs.data.source import DataInfo, moved
from trainjobs.noise import Noise

# Times what is mixed at a time is fetched before it is needed: a third of the cache is read, a third is fetched, and the last is still
# needed by batches that were begun. With twice as much, shards are dropped that are needed again.
MIXED = 1
FETCHERS = 16  # blocks at a time; as many objects are on their way at a time
SOON = 4096  # samples whose blocks are fetched before they are needed, where all of the data is one window
STEP = 1024  # samples after which those are looked at anew


@dataclass(frozen=True)
class Sample:
    pixels: npt.NDArray[np.uint8]  # [channels, height, width]
    label: int
    caption: str
    where: str


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """`roles` names the columns of "image" and, where there are any, "label" and "caption". `classes` numbers the values of labels that are
    not numbers of classes themselves. Captions are `caption` bytes long. `bad` takes samples that cannot be read, which are an error
    without it. `pin` for a GPU. `fetchers` fetch the blocks of a batch side by side, where they are not on this machine."""

    info: DataInfo
    train: Rows
    held: Rows
    places: Places
    shelf: Shelf
    images: Images
    roles: Mapping[str, str]
    classes: Mapping[Value, int] | None = None
    caption: int = LONGEST
    bad: BadSamples | None = None
    pin: bool = False
    fetchers: Executor | None = None
    _begun: list[tuple[int, list[int]]] = field(default_factory=list)  # of the batches that are being read: where, and `_behind`
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(
        cls,
        train: Rows,
        held: Rows,
        order: Order,
        data: Data,
        shelf: Shelf,
        roles: Mapping[str, str],
        *,
        classes: Mapping[Value, int] | None = None,
        caption: int = LONGEST,
        bad: BadSamples | None = None,
        pin: bool = False,
    ) -> StreamedImages:
        images = data.images
        info = DataInfo("image", (images.channels, images.size, images.size), len(train), len(held))
        places = Places.of(order, train)
        here = all(one.path is not None for rows in (train, held) for unit in rows.units for one in unit.objects)
        fetchers = None if here else ThreadPoolExecutor(FETCHERS, "fetch")
        return cls(info, train, held, places, shelf, images, roles, classes, caption, bad, pin, fetchers)

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        return self.made(self.rows(positions, seed), noise)

    def rows(self, positions: Tensor, seed: int) -> dict[str, Tensor]:
        """What takes time of a batch, on the CPU, without randomness: any thread may ask."""
        with self._reading(positions, seed):
            return self.read_at(self.places.numbers(positions, seed))

    def read_at(self, numbers: npt.NDArray[np.int64], shape: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """`rows` of training samples number int64 [B]; of a `shape`, width and height, other than the square."""
        found = self._stacked(self._read(self.train, numbers, shape))
        return {name: value.pin_memory() for name, value in found.items()} if self.pin else found

    def coming(self, positions: Tensor, seed: int) -> None:
        """These positions (int64 [n]) are asked for next, behind those that were told before: of rows that are objects of their own, those
        objects are fetched, and no others."""
        self.coming_at(self.places.numbers(positions, seed))

    def coming_at(self, numbers: npt.NDArray[np.int64]) -> None:
        """The same of training samples by their numbers."""
        if self.fetchers is not None and (objects := self._reader.objects(self.train, numbers)) is not None:
            self.shelf.soon(self.train.records.place, objects)

    def close(self) -> None:
        """Nothing more is fetched."""
        self.shelf.close()
        if self.fetchers is not None:
            self.fetchers.shutdown(wait=False, cancel_futures=True)

    def made(self, rows: Mapping[str, Tensor], noise: Noise) -> dict[str, Tensor]:
        """The batch of these rows, on the device of the noise."""
        found = {name: moved(value, noise.samples.device) for name, value in rows.items()}
        return found | {"image": augmented(scaled(found["image"]), self.images, noise)}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self.plain(indices, held=True)

    def numbers(self, positions: Tensor, seed: int) -> Tensor:
        return torch.from_numpy(self.places.numbers(positions, seed))

    def plain(self, numbers: Tensor, *, held: bool, shape: tuple[int, int] | None = None) -> dict[str, Tensor]:
        found = self._stacked(self._read(self.held if held else self.train, numbers.numpy(), shape))
        return found | {"image": scaled(found["image"])}

    def names(self, numbers: Tensor, *, held: bool) -> list[str]:
        return [sample.where for sample in self._read(self.held if held else self.train, numbers.numpy())]

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        """Labels and captions of held-out samples, one after the other and from the front again; of training samples where none is."""
        wanted = [role for role in ("label", "caption") if role in self.roles]
        if not wanted:
            return {}
        of = self.held if len(self.held) else self.train
        found = self._stacked(self._read(of, rows.numpy() % len(of)))
        return {role: found[role] for role in wanted}

    @contextmanager
    def _reading(self, positions: Tensor, seed: int) -> Iterator[None]:
        """Begin to fetch what is needed for these positions and behind them, and keep what other threads, a batch behind, still read."""
        if self.fetchers is None or self._reader.apart:
            yield
            return
        mine = int(positions[0]), self._behind(positions, seed)
        with self._lock:
            self._begun.append(mine)
            coming = dict.fromkeys(block for _, behind in sorted(self._begun) for block in behind)
            blocks = self.train.records.blocks
            objects = dict.fromkeys(one for block in coming for one in blocks[block].objects)
            self.shelf.ahead(self.train.records.place, tuple(objects))
        try:
            yield
        finally:
            with self._lock:
                self._begun.remove(mine)

    def _behind(self, positions: Tensor, seed: int) -> list[int]:
        """The blocks that are mixed for these positions, and those that are needed next."""
        first = int(positions[0])
        if self.places.order.kind == "whole":
            begin = first - first % STEP
            return self._needed(begin, first - begin + len(positions) if len(positions) > SOON else SOON + STEP, seed)
        groups, left, found = self.places.coming(first, seed), set(self.places.at(positions, seed)[0].tolist()), list[int]()
        for number, mixed in enumerate(groups):  # a batch may be larger than what is mixed
            if not left and number > MIXED:
                break
            found += mixed
            left.difference_update(mixed)
        return found

    @cached_property
    def _needed(self) -> Callable[[int, int, int], list[int]]:
        """The blocks of so many samples from a position on, in the order of their need; remembered, as it takes as long as reading a
        batch of shards that are here."""

        def needed(begin: int, count: int, seed: int) -> list[int]:
            stretch = torch.arange(begin, begin + count)
            return list(dict.fromkeys(self.places.at(stretch, seed)[0].tolist()))

        return lru_cache(maxsize=4)(needed)

    # --- reading ---------------------------------------------------------------------------------------------------------------------

    def _read(self, rows: Rows, numbers: npt.NDArray[np.int64], shape: tuple[int, int] | None = None) -> list[Sample]:
        """The samples with these numbers, in the order asked for: read block by block, decoded here."""
        blocks, own = rows.at(numbers)
        found: list[tuple[int, Sample]] = []
        for here, records in self._reader.read(rows, numbers):
            for place, record in zip(here.tolist(), records, strict=True):
                found.append((place, self._good(rows, int(blocks[place]), int(own[place]), record, shape)))
        if self.bad is not None:
            self.bad.saw(len(numbers))
        return [sample for _, sample in sorted(found, key=lambda pair: pair[0])]

    @cached_property
    def _reader(self) -> Reader:
        columns = tuple(self.roles.values())
        return Reader(self.train, self.places.order, self.shelf, columns, self.fetchers, self.bad is not None)

    def _good(self, rows: Rows, block: int, row: int, record: Record | None, shape: tuple[int, int] | None) -> Sample:
        """A row; where it is bad and may be left out, the next good one of its block and side, from the front again behind the last."""
        if self.bad is None:
            assert record is not None, "an error was raised"
            return self._sample(record, shape)
        own = rows.block(block)
        first = int(np.searchsorted(own, row))
        for step in range(len(own)):
            candidate = int(own[(first + step) % len(own)])
            if (block, candidate) in self.bad:
                continue
            try:
                if step or record is None:
                    (record,) = rows.records.read(self.shelf, block, [candidate], tuple(self.roles.values()))
                return self._sample(record, shape)
            except JobError as error:
                if error.code != "GTJ0113":
                    raise
                self.bad.add((block, candidate), error)
        names = ", ".join(one.name for one in rows.records.blocks[block].objects[:3])
        why = f"none of its {len(own)} samples can be read, and data.onBadSample: skip takes a neighbour from the same part"
        raise JobError("GTJ0113", "a part of the data is broken", where=names, why=why, how=f"look at {self.bad.path}")

    def _sample(self, record: Record, shape: tuple[int, int] | None) -> Sample:
        pixels = decode(encoded(record, self.roles["image"]), shape or self.images.size, self.images.channels, record.where)
        label, caption = self._label(record), self._caption(record)
        return Sample(pixels, label, caption, record.where)

    def _label(self, record: Record) -> int:
        if "label" not in self.roles:
            return -1
        value = record.values.get(self.roles["label"])
        number = value if self.classes is None else self.classes.get(value)
        if not isinstance(number, int) or number < 0:
            why = f"column {self.roles['label']} holds {value!r:.40}, which is none of the classes"
            raise JobError("GTJ0113", f"{record.name} has no label", where=record.where, why=why, how="mend or remove the sample")
        return number

    def _caption(self, record: Record) -> str:
        if "caption" not in self.roles:
            return ""
        value = record.values.get(self.roles["caption"])
        if not isinstance(value, str) or not value.strip():
            why = f"column {self.roles['caption']} holds {type(value).__name__ if value and not isinstance(value, str) else 'nothing'}"
            raise JobError("GTJ0113", f"{record.name} has no caption", where=record.where, why=why, how="mend or remove the sample")
        return value

    def _stacked(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """{"image": uint8 [B, C, H, W]} and, where there are roles of them, "label" int64 [B] and "caption" int64 [B, L]."""
        found = {"image": torch.from_numpy(np.stack([sample.pixels for sample in samples]))}
        if "label" in self.roles:
            found["label"] = torch.tensor([sample.label for sample in samples])
        if "caption" in self.roles:
            texts, where = [sample.caption for sample in samples], [sample.where for sample in samples]
            found["caption"] = torch.from_numpy(tokens(texts, self.caption, where))
        return found
