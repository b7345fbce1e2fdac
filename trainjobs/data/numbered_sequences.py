"""Sources of encoded records whose samples are numbers: which ones a batch has, those held out, and those that are shown to people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from trainjobs.data.answers import Numbers
from trainjobs.data.sampler import order
from trainjobs.data.sequences import Sequences
from trainjobs.data.source import DataInfo, moved
from trainjobs.noise import Noise


@dataclass(frozen=True, eq=False)
class NumberedSource(ABC):
    """`train` and `held` are numbers of records, in the sequences' own count; `pad` a token that fills up."""

    info: DataInfo
    sequences: Sequences
    train: Numbers
    held: Numbers
    pad: int

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        rows = self._rows(self._at(positions, seed))
        return {name: moved(value, noise.samples.device) for name, value in rows.items()}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self._rows(self.held[indices.numpy()])

    def conditions(self, rows: Tensor) -> dict[str, Tensor]:
        """Held-out records, where there are such, as a batch has them."""
        return self._rows(self._shown[rows.numpy() % len(self._shown)])

    def _at(self, positions: Tensor, seed: int) -> Numbers:
        """The numbers of the records at these positions of the stream of data."""
        found: Numbers = self.train[order(positions, seed, len(self.train)).numpy()]
        return found

    @property
    def _shown(self) -> Numbers:
        return self.held if len(self.held) else self.train

    @abstractmethod
    def _rows(self, numbers: Numbers) -> dict[str, Tensor]:
        """A batch of the records with these numbers, on the CPU."""


def sides(sequences: Sequences, info: DataInfo, times: int = 1) -> tuple[DataInfo, Sequences, Numbers, Numbers]:
    """What a NumberedSource begins with: `info` with its counts, each training record counted so many `times`, and the records' numbers."""
    train, held = np.flatnonzero(~sequences.held), np.flatnonzero(sequences.held)
    return replace(info, length=len(train) * times, heldout=len(held)), sequences, train, held
