"""What the trainer knows of its data: its shape, its size, and how to ask for a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from trainjobs.api.errors import JobError
from trainjobs.data.tokens import Tokenizer

if TYPE_CHECKING:  # `gtj run` looks at the data before it starts anything, and must not pay for importing torch
    import torch
    from torch import Tensor

    from trainjobs.data.pretrained import Pretrained
    from trainjobs.noise import Noise


@dataclass(frozen=True)
class DataInfo:
    """`shape` is (channels, height, width) of an image or of its latents, (2,) of a point, (context length,) of a text."""

    kind: Literal["image", "point", "text"]
    shape: tuple[int, ...]
    length: int  # training samples, at least 1
    heldout: int  # held-out samples
    vocabulary: int | None = None  # size of the vocabulary (text only)
    tokenizer: Tokenizer | None = None  # text only
    modes: tuple[tuple[float, float], ...] | None = None  # centres of builtin:ring
    classes: tuple[str, ...] = ()  # names of the classes, by number, where samples have a label
    form: str = ""  # of records for a language model (see formats.py); "" for text as one stream
    difficulty: Tensor | None = None  # float64 [length], by data.curriculum.column, of each training sample in the source's own count
    base: Pretrained | None = None  # the trained model that the job goes on from, where it does
    orders: tuple[Mapping[str, Any], ...] = ()  # of each source, where it is not simply one permutation: what a checkpoint keeps
    note: str = ""  # what whoever trains on it should know, of pictures of several shapes
    decode: Callable[[Tensor], Tensor] | None = None  # of latents, what makes pictures of them, float [B, C, H, W]
    encoder: Mapping[str, str] | None = None  # of latents, the digests of the autoencoder's files, by name


class Source(Protocol):
    """A data set, opened. Batches are {"image": float [B, C, H, W] in [-1, 1]}, {"point": float [B, 2]} or {"tokens": int64 [B, T + 1]}."""

    @property
    def info(self) -> DataInfo: ...

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        """The training samples at `positions` (int64 [B] on the CPU, from 0 on without end) of the stream of data, augmented with `noise`,
        on its device. Which samples those are is the source's own matter, a pure function of position and seed: curriculum, packing,
        pairs, groups of a prompt are sources that wrap a source."""
        ...

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        """Held-out samples number `indices` (int64 [B], each below info.heldout), as they are, on the CPU."""
        ...


@runtime_checkable
class Conditional(Source, Protocol):
    """A data set whose samples are drawn for something: labels, prompts."""

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        """For samples number `rows` (int64 [B], from 0 on without end), what they are to be drawn for, on the CPU, as in a batch."""
        ...


@runtime_checkable
class Numbered(Source, Protocol):
    """A data set whose training samples have numbers, and which gives every sample as it is."""

    def numbers(self, positions: Tensor, seed: int) -> Tensor:
        """int64 [B], below info.length: which training samples are at `positions`, as in `batch`."""
        ...

    def plain(self, numbers: Tensor, *, held: bool) -> dict[str, Tensor]:
        """Training samples, or held-out ones, with these numbers: as in a batch, but unchanged and on the CPU."""
        ...

    def names(self, numbers: Tensor, *, held: bool) -> list[str]:
        """What people call them: files, where they are such."""
        ...


@runtime_checkable
class Shaped(Protocol):
    """A source whose training batches are of several shapes."""

    @property
    def squares(self) -> Source:
        """The same samples, in an order of its own, as pictures of info.shape."""
        ...


def squares(source: Source) -> Source:
    """What evaluations, sheets and plans look at: batches of any positions have pictures of info.shape."""
    return source.squares if isinstance(source, Shaped) else source


@runtime_checkable
class Counted(Source, Protocol):
    """A data set that knows how much is learned of each sample."""

    def units(self, positions: Tensor, seed: int) -> Tensor:
        """int64 [B]: the units (tokens) that a loss is a mean over, of each sample at `positions`, as in `batch`: a pure function, so that
        every rank knows them of the whole batch."""
        ...


def moved(rows: Tensor, device: torch.device) -> Tensor:
    """A new CPU tensor, on the device. From pinned memory: any other copy waits until the device has done all it was asked before."""
    return rows if device.type == "cpu" else rows.pin_memory().to(device, non_blocking=True)


def divide(samples: int, holdout: float, where: str, noun: str) -> tuple[int, int]:
    """(training samples, held-out samples): the share `holdout`, rounded, and at least one sample when it is not 0.

    JobError GTJ0113 when nothing would be left to train on.
    """
    heldout = max(1, round(samples * holdout)) if holdout > 0 else 0
    if samples - heldout < 1:
        raise none_left(samples, holdout, where, noun)
    return samples - heldout, heldout


def none_left(samples: int, holdout: float, where: str, noun: str) -> JobError:
    """GTJ0113: everything is held out."""
    why = f"{samples} {noun} found, and held out by data.holdout {holdout:g}"
    return JobError("GTJ0113", "no training samples are left", where=where, why=why, how="add data, or set data.holdout to 0")
