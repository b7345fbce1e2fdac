"""Pictures as latents of a frozen autoencoder: encoded anew for each batch, or once, into a table.

The table holds what is known of a latent before it is drawn, mean and logarithm of the variance, of every picture, and of its mirror image
in a second file where pictures are flipped. z = mean + exp(logvar / 2) eps is drawn at each step by the sample's own noise, then moved and
scaled: (z - shift) * scale. So both ways give the same latents to the last bit.

Pictures pass the autoencoder in groups of one size, filled up: what becomes of one does not depend on how a batch is cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.data.ahead import Expecting, Late
from trainjobs.data.bucketed import BucketedImages
from trainjobs.data.buckets import Bucketed
from trainjobs.data.cache import cached
from trainjobs.data.encoded import Encoded
from trainjobs.data.source import Conditional, DataInfo, Numbered, Source, moved, squares
from trainjobs.noise import Noise

VERSION = 1  # of what is written; part of a table's name
READ = 256  # pictures that are read together while a table is written
TOGETHER = 8  # pictures that pass the autoencoder together


NONE: npt.NDArray[Any] = np.empty(0, np.uint8)  # a table without rows
# Of training samples, of their mirror images, of held-out samples.
Tables = tuple[npt.NDArray[Any], npt.NDArray[Any] | None, npt.NDArray[Any]]


class Encoder(Protocol):
    """A frozen autoencoder: float [n, C, H, W] in [-1, 1] to float32 [n, 2c, h, w], means and then logarithms of variances, where the
    pictures are. `shift` and `scale` are numbers, or one for each channel, float32 [c, 1, 1]."""

    @property
    def shift(self) -> Tensor: ...

    @property
    def scale(self) -> Tensor: ...

    def encode(self, images: Tensor) -> Tensor: ...


def encoded(encoder: Encoder, images: Tensor) -> Tensor:
    """The same of any number of pictures, group by group."""
    found = []
    for start in range(0, len(images), TOGETHER):
        part = images[start : start + TOGETHER]
        lacking = TOGETHER - len(part)
        filled = torch.cat([part, part[:1].expand(lacking, -1, -1, -1)]) if lacking else part
        found.append(encoder.encode(filled)[: len(part)])
    return torch.cat(found)


def drawn(encoder: Encoder, moments: Tensor, noise: Noise) -> Tensor:
    """float32 [B, c, h, w]: what is trained on, of moments [B, 2c, h, w] on the noise's device."""
    mean, logvar = moments.contiguous().chunk(2, dim=1)  # as in a table: by how it lies in memory torch chooses how it computes
    z = mean + (0.5 * logvar).exp() * noise.normal("latents", *mean.shape[1:])
    return (z - encoder.shift.to(z.device)) * encoder.scale.to(z.device)


def heldout_noise(indices: Tensor, device: torch.device) -> Noise:
    """That of held-out samples: the same at every look."""
    return Noise.of(0, 0, "latents", indices.to(device))


@dataclass(frozen=True)
class EncodedLatents:
    """Each batch of `source` anew. `info` is that of its latents; `named` can name its samples."""

    source: Source
    encoder: Encoder
    info: DataInfo
    device: torch.device
    named: Numbered | None = None

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        rows = self.source.batch(positions, seed, noise)
        names = lambda: self.named.names(self.named.numbers(positions, seed), held=False) if self.named else []  # noqa: E731
        return rows | {"image": drawn(self.encoder, self._moments(rows["image"], names), noise)}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        rows = self.source.heldout_batch(indices)
        names = lambda: self.named.names(indices, held=True) if self.named else []  # noqa: E731
        moments = self._moments(rows["image"].to(self.device), names)
        return rows | {"image": drawn(self.encoder, moments, heldout_noise(indices, self.device))}

    @property
    def squares(self) -> Source:
        return replace(self, source=squares(self.source))

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        return self.source.conditions(rows) if isinstance(self.source, Conditional) else {}

    def depth(self, positions: Tensor) -> int:
        return self.source.depth(positions) if isinstance(self.source, Expecting) else 0

    def expect(self, coming: Sequence[Tensor], seed: int) -> None:
        if isinstance(self.source, Expecting):
            self.source.expect(coming, seed)

    def tell(self, late: Late) -> None:
        if isinstance(self.source, Expecting):
            self.source.tell(late)

    def _moments(self, images: Tensor, names: Callable[[], list[str]]) -> Tensor:
        found = encoded(self.encoder, images)
        refuse_numbers_that_are_none(found, names)
        return found


@dataclass(frozen=True, eq=False)
class CachedLatents:
    """Of `source` only the order and the conditions of its samples are asked. `train`, `flipped` and `held` are tables of rows, by the
    numbers of training and of held-out samples, whose fields are `moments` and the conditions of a batch; `flipped` has moments alone.
    Of pictures of several shapes (`places`) `train` and `flipped` are empty, and `shaped` has two such for each shape, of its samples."""

    source: Numbered
    encoder: Encoder
    info: DataInfo
    device: torch.device
    train: npt.NDArray[Any]
    flipped: npt.NDArray[Any] | None
    held: npt.NDArray[Any]
    pin: bool = False
    places: Bucketed | None = None
    shaped: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any] | None]] = ()

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        return self.made(self.rows(positions, seed), noise)

    def rows(self, positions: Tensor, seed: int) -> dict[str, Tensor]:
        """What takes time of a batch (see trainjobs.data.ahead)."""
        numbers, train, flipped = self.source.numbers(positions, seed).numpy(), self.train, self.flipped
        if self.places is not None:
            which = self.places.shapes.index(self.places.shape(positions, seed))
            numbers, (train, flipped) = np.searchsorted(self.places.members[which], numbers), self.shaped[which]
        found = _fields(train[numbers])
        if flipped is not None:
            found["flipped"] = _fields(flipped[numbers])["moments"]
        return {name: value.pin_memory() for name, value in found.items()} if self.pin else found

    def made(self, rows: Mapping[str, Tensor], noise: Noise) -> dict[str, Tensor]:
        found = {name: moved(value, noise.samples.device) for name, value in rows.items()}
        moments = found.pop("moments")
        if "flipped" in found:  # as augment.py decides
            moments = torch.where(noise.uniform("horizontalFlip")[:, None, None, None] < 0.5, found.pop("flipped"), moments)
        return {"image": drawn(self.encoder, moments, noise), **found}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        found = _fields(self.held[indices.numpy()])
        moments = found.pop("moments").to(self.device)
        return {"image": drawn(self.encoder, moments, heldout_noise(indices, self.device)), **found}

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        return self.source.conditions(rows) if isinstance(self.source, Conditional) else {}


def unencoded(source: Source) -> Source:
    """What is encoded, where samples are encoded before they are trained on: pictures of latents, for one."""
    while isinstance(source, Encoded | EncodedLatents | CachedLatents):
        source = source.source
    return source


def tables(source: Numbered, encoder: Encoder, stem: Path, device: torch.device, *, flips: bool, say: Callable[[str], None]) -> Tables:
    """(train, flipped, held) of CachedLatents, mapped from files whose names begin with `stem`, which are written where they do not exist.
    JobError GTJ0113 for a picture whose latents are no numbers, GTJ0114 where the disk is full."""

    def table(what: str, count: int, *, held: bool, flip: bool) -> npt.NDArray[Any]:
        read = partial(source.plain, held=held)
        return _table(Path(f"{stem}-{what}.npy"), source, encoder, device, torch.arange(count), read, held=held, flip=flip, say=say)

    train = table("train", source.info.length, held=False, flip=False)
    flipped = table("flipped", source.info.length, held=False, flip=True) if flips else None
    return train, flipped, table("held", source.info.heldout, held=True, flip=False)


def shaped_tables(
    source: BucketedImages, encoder: Encoder, stem: Path, device: torch.device, *, flips: bool, say: Callable[[str], None]
) -> tuple[list[tuple[npt.NDArray[Any], npt.NDArray[Any] | None]], npt.NDArray[Any]]:
    """(`shaped`, `held`) of CachedLatents, as `tables`."""
    found = []
    for (width, height), members in zip(source.places.shapes, source.places.members, strict=True):
        pair = [
            _table(
                Path(f"{stem}-{width}x{height}-{what}.npy"), source, encoder, device, torch.from_numpy(members), source.whole,
                held=False, flip=flip, say=say,
            )
            for what, flip in (("train", False), ("flipped", True))[: 1 + flips]
        ]  # fmt: skip
        found.append((pair[0], pair[1] if flips else None))
    held, read = torch.arange(source.info.heldout), partial(source.plain, held=True)
    return found, _table(Path(f"{stem}-held.npy"), source, encoder, device, held, read, held=True, flip=False, say=say)


Read = Callable[[Tensor], dict[str, Tensor]]  # samples by their numbers


def _table(
    path: Path, source: Numbered, encoder: Encoder, device: torch.device, every: Tensor, read: Read, *, held: bool, flip: bool,
    say: Callable[[str], None],
) -> npt.NDArray[Any]:  # fmt: skip
    count = len(every)

    def write(file: BinaryIO) -> None:
        logging.getLogger(__name__).info("encoding %d pictures, once, in %s", count, path)
        described = False
        for rows in _encoded(source, encoder, device, every, read, held=held, flip=flip, say=say):
            if not described:
                kind = np.lib.format.dtype_to_descr(rows.dtype)
                np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": (count,)})
                described = True
            file.write(rows.tobytes())

    if not count:
        return NONE
    found: npt.NDArray[Any] = np.load(cached(path, write), mmap_mode="r")
    return found


def _encoded(
    source: Numbered, encoder: Encoder, device: torch.device, every: Tensor, read: Read, *, held: bool, flip: bool,
    say: Callable[[str], None],
) -> Iterator[npt.NDArray[Any]]:  # fmt: skip
    for start in range(0, len(every), READ):
        numbers = every[start : start + READ]
        say(f"encoding pictures {start}/{len(every)}")
        rows = read(numbers)
        images = rows.pop("image").to(device)
        moments = encoded(encoder, images.flip(-1) if flip else images)
        refuse_numbers_that_are_none(moments, partial(source.names, numbers, held=held))
        fields = {"moments": moments.cpu(), **({} if flip else rows)}
        kind = [(name, str(value.numpy().dtype), tuple(value.shape[1:])) for name, value in fields.items()]
        table = np.empty(len(numbers), np.dtype(kind))
        for name, value in fields.items():
            table[name] = value.numpy()
        yield table


def _fields(rows: npt.NDArray[Any]) -> dict[str, Tensor]:
    """Rows of a table, copied."""
    return {name: torch.from_numpy(np.ascontiguousarray(rows[name])) for name in rows.dtype.names or ()}


def refuse_numbers_that_are_none(moments: Tensor, names: Callable[[], list[str]]) -> None:
    """JobError GTJ0113, naming the first picture."""
    if bool(moments.isfinite().all()):
        return
    bad = (~moments.isfinite().flatten(1).all(dim=1)).nonzero()[:, 0].tolist()
    called = names()
    first = called[bad[0]] if called else f"picture {bad[0]} of a batch"
    more = f", and of {len(bad) - 1} of the next {len(moments)}" if len(bad) > 1 else ""
    why = "the autoencoder makes infinite numbers, or none, of the picture" + more
    how = "look at it, and remove it; or use an autoencoder that was trained on such pictures"
    raise JobError("GTJ0113", f"the latents of {first} are no numbers", where=first, why=why, how=how)
