"""Images in memory, batch by batch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainjobs.api.data import Data, Images
from trainjobs.data import shapes
from trainjobs.data.augment import augmented
from trainjobs.data.cache import cached
from trainjobs.data.conditions import NONE, Conditions
from trainjobs.data.sampler import order, split
from trainjobs.data.source import DataInfo, divide, moved
from trainjobs.noise import Noise

VERSION = 2  # of what `read` and `draw` make; part of the cached file's name


@dataclass(frozen=True)
class ImageSource:
    """`pixels` is [N, C, H, W], uint8 (0 is -1, 255 is 1) or float32 in [-1, 1]; one grey channel stands for as many as `info` says.

    uint8 is a quarter of the memory, and of the way to a GPU. A memory map does as well: the workers of a machine share its pages.
    """

    info: DataInfo
    pixels: Tensor
    train: Tensor  # int64 [info.length]: rows of `pixels`
    held: Tensor  # int64 [info.heldout]
    images: Images
    beside: Conditions = NONE
    called: Callable[[int], str] = "row {}".format  # by the number of a row of `pixels`

    @classmethod
    def of(cls, pixels: Tensor, data: Data, beside: Conditions = NONE) -> ImageSource:
        """Held out by place: what is built in cannot grow."""
        return cls.divided(pixels, data, *split(len(pixels), divide(len(pixels), data.holdout, data.uri, "image")[1]), beside)

    @classmethod
    def divided(cls, pixels: Tensor, data: Data, train: Tensor, held: Tensor, beside: Conditions = NONE) -> ImageSource:
        """With these rows trained on and held out, each ascending."""
        images = data.images
        shape = (images.channels, images.size, images.size)
        info = DataInfo("image", shape, len(train), len(held), classes=beside.classes)
        return cls(info, pixels, train, held, images, beside)

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        rows, device = self.train[order(positions, seed, self.info.length)], noise.samples.device
        image = augmented(scaled(moved(self.pixels.index_select(0, rows), device)), self.images, noise)
        return {"image": self._coloured(image), **{name: moved(value, device) for name, value in self.beside.of(rows).items()}}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self.plain(indices, held=True)

    def numbers(self, positions: Tensor, seed: int) -> Tensor:
        return order(positions, seed, self.info.length)

    def plain(self, numbers: Tensor, *, held: bool) -> dict[str, Tensor]:
        rows = (self.held if held else self.train)[numbers]
        return {"image": self._coloured(scaled(self.pixels.index_select(0, rows))), **self.beside.of(rows)}

    def names(self, numbers: Tensor, *, held: bool) -> list[str]:
        return [self.called(row) for row in (self.held if held else self.train)[numbers].tolist()]

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        """Of held-out samples, one after the other and from the front again; of training samples where none is."""
        of = self.held if len(self.held) else self.train
        return self.beside.of(of[rows % len(of)])

    def _coloured(self, image: Tensor) -> Tensor:
        return image.expand(-1, self.info.shape[0], -1, -1)


def scaled(image: Tensor) -> Tensor:
    """uint8 as float in [-1, 1]; float as it is."""
    return image.div(127.5).sub_(1.0) if image.dtype == torch.uint8 else image


def open_shapes(data: Data, cache: Path, beside: Conditions = NONE) -> ImageSource:
    """builtin:shapes, drawn into `cache` once for each setting of size and channels."""
    images = data.images
    path = cache / f"shapes-v{VERSION}-{images.size}x{images.channels}.npy"
    return ImageSource.of(table(path, shapes.COUNT, images, lambda: shapes.rows(images.size, images.channels)), data, beside)


def table(path: Path, count: int, images: Images, rows: Callable[[], Iterable[npt.NDArray[np.uint8]]]) -> Tensor:
    """uint8 [count, C, H, W], mapped from the .npy file `path`, which is written from `rows` if it does not exist."""

    def write(file: BinaryIO) -> None:
        logging.getLogger(__name__).info("preparing %d images, once, in %s", count, path)
        shape = (count, images.channels, images.size, images.size)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for row in rows():  # written, not mapped: a full disk is then an error and not a signal
            file.write(row.tobytes())

    return readonly(np.load(cached(path, write), mmap_mode="r"))


def readonly(array: npt.NDArray[np.generic]) -> Tensor:
    """The array as a tensor that nobody writes to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "the given NumPy array is not writable"
        return torch.from_numpy(array)
