"""Several sources as one: every batch holds their samples by their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from trainjobs.api.errors import JobError
from trainjobs.data.ahead import Fetching, Preparing, close
from trainjobs.data.captions import NOTHING
from trainjobs.data.found import Found
from trainjobs.data.mixture import Mixture, apart, interleaved
from trainjobs.data.source import Conditional, Counted, DataInfo, Numbered, Source
from trainjobs.noise import Noise, mix

FILL = {"caption": NOTHING, "labels": -100, "documents": -1}  # behind rows that are shorter than others


@dataclass(frozen=True)
class Mixed:
    """`info` is that of all: as many samples as there are. With weights that are not by size, an epoch of it is no epoch of each source:
    each goes through its own, one after the other."""

    info: DataInfo
    sources: tuple[Source, ...]
    mixture: Mixture
    held: tuple[Tensor, Tensor]  # of each held-out sample, int64: whose it is, and which of them

    @classmethod
    def of(cls, sources: Sequence[Source], weights: Sequence[float], names: Sequence[str]) -> Mixed:
        """JobError GTJ0108 when they are of different shapes; `names` are their URIs."""
        first = sources[0].info
        for source, name in zip(sources, names, strict=True):
            other = source.info
            if (other.kind, other.shape, other.vocabulary) != (first.kind, first.shape, first.vocabulary):
                why = f"it holds {other.kind}s of shape {list(other.shape)}, and {names[0]} {first.kind}s of shape {list(first.shape)}"
                raise JobError("GTJ0108", "a source does not go with the others", where=name, why=why, how="mix sources of one kind")
        counts = [source.info.heldout for source in sources]
        whose, which = map(torch.from_numpy, interleaved(counts))
        info = replace(first, length=sum(source.info.length for source in sources), heldout=sum(counts))
        return cls(info, tuple(sources), Mixture(tuple(weights)), (whose, which))

    @classmethod
    def of_parts(cls, sources: Sequence[Source], found: Sequence[Found]) -> Source:
        """The sources of a job; one by itself is no mixture."""
        return sources[0] if len(sources) == 1 else cls.of(sources, [one.part.weight for one in found], [one.uri for one in found])

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        return self.made(self.rows(positions, seed), noise)

    def rows(self, positions: Tensor, seed: int) -> list[Share]:
        """What takes time of a batch (see trainjobs.data.ahead)."""
        shares = []
        for number, (here, own) in apart(*self.mixture.at(positions, seed)).items():
            source, theirs = self.sources[number], mix(seed, "source", number)
            prepared = source.rows(own, theirs) if isinstance(source, Preparing) else None
            shares.append(Share(number, here, own, theirs, prepared))
        return shares

    def coming(self, positions: Tensor, seed: int) -> None:
        for number, (_, own) in apart(*self.mixture.at(positions, seed)).items():
            if isinstance(source := self.sources[number], Fetching):
                source.coming(own, mix(seed, "source", number))

    def close(self) -> None:
        for source in self.sources:
            close(source)

    def made(self, rows: Sequence[Share], noise: Noise) -> dict[str, Tensor]:
        parts = []
        for share in rows:
            source, own = self.sources[share.source], Noise(noise.seed, noise.samples[share.here.to(noise.samples.device)])
            if isinstance(source, Preparing):
                parts.append((share.here, source.made(share.prepared, own)))
            else:
                parts.append((share.here, source.batch(share.positions, share.seed, own)))
        return together(parts)

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        whose, which = (rows[indices].numpy() for rows in self.held)
        return together([(here, self.sources[source].heldout_batch(own)) for source, (here, own) in apart(whose, which).items()])

    def numbers(self, positions: Tensor, seed: int) -> Tensor:
        found = torch.zeros_like(positions)
        for number, (here, own) in apart(*self.mixture.at(positions, seed)).items():
            found[here] = self._begins[number] + self._picture(number).numbers(own, mix(seed, "source", number))
        return found

    def plain(self, numbers: Tensor, *, held: bool) -> dict[str, Tensor]:
        if held:
            return self.heldout_batch(numbers)
        parts = self._apart(numbers)
        return together([(here, self._picture(source).plain(own, held=False)) for source, (here, own) in parts.items()])

    def names(self, numbers: Tensor, *, held: bool) -> list[str]:
        found = [""] * len(numbers)
        parts = apart(*(rows[numbers].numpy() for rows in self.held)) if held else self._apart(numbers)
        for source, (here, own) in parts.items():
            for place, name in zip(here.tolist(), self._picture(source).names(own, held=held), strict=True):
                found[place] = name
        return found

    @property
    def _begins(self) -> list[int]:
        """Where the training samples of each source begin."""
        return [0, *accumulate(source.info.length for source in self.sources)]

    def _apart(self, numbers: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        begins = np.asarray(self._begins)
        whose = np.searchsorted(begins, numbers.numpy(), side="right") - 1
        return apart(whose, numbers.numpy() - begins[whose])

    def _picture(self, number: int) -> Numbered:
        source = self.sources[number]
        assert isinstance(source, Numbered), "asked of sources of pictures only"
        return source

    def units(self, positions: Tensor, seed: int) -> Tensor:
        found = torch.zeros_like(positions)
        for share in self.rows(positions, seed) if all(isinstance(source, Counted) for source in self.sources) else ():
            source = self.sources[share.source]
            assert isinstance(source, Counted)
            found[share.here] = source.units(share.positions, share.seed)
        return found

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        """Each source's in turn."""
        whose, which = (rows % len(self.sources)).numpy(), (rows // len(self.sources)).numpy()
        parts = []
        for source, (here, own) in apart(whose, which).items():
            asked = self.sources[source]
            if not isinstance(asked, Conditional) or not (found := asked.conditions(own)):
                return {}
            parts.append((here, dict(found)))
        return together(parts)


@dataclass(frozen=True)
class Share:
    """Of a batch what one source gives. `here` are its places in the batch, int64 [b]; `prepared` is the source's own."""

    source: int
    here: Tensor
    positions: Tensor
    seed: int
    prepared: Any


def together(parts: Sequence[tuple[Tensor, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Batches as one, each row (int64 [b]) at its place. What all of them have is kept; rows that are shorter are filled up."""
    names = [name for name in parts[0][1] if all(name in rows for _, rows in parts)]
    order = torch.cat([here for here, _ in parts]).argsort()
    made = {}
    for name in names:
        values = [rows[name] for _, rows in parts]
        if len({value.shape[-1] for value in values if value.dim() > 1}) > 1:
            longest = max(value.shape[-1] for value in values)
            values = [pad(value, (0, longest - value.shape[-1]), value=FILL.get(name, 0)) for value in values]
        made[name] = torch.cat(values)[order.to(values[0].device)]
    return made
