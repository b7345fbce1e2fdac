"""What a picture shows, beside it: its class, and its caption.

A class is a number: as it stands where the data has numbers, else the place of its word among all words, sorted. A caption is its bytes
of UTF-8, one token each, padded with NOTHING: tokenizers of text encoders decode it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.problem import listed
from trainjobs.data.captions import LONGEST, NOTHING

SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Conditions:
    """Of N rows. `label` is int64 [N], `classes` their names, by number, where they have some; `text` and `starts` hold the captions one
    behind the other: uint8 [bytes], int64 [N + 1]."""

    label: Tensor | None = None
    classes: tuple[str, ...] = ()
    text: Tensor | None = None
    starts: Tensor | None = None

    def of(self, rows: Tensor) -> dict[str, Tensor]:
        """{"label": int64 [B], "caption": int64 [B, LONGEST]}, or what of them there is, for int64 [B], on the CPU."""
        found = {}
        if self.label is not None:
            found["label"] = self.label[rows]
        if self.text is not None and self.starts is not None:
            begin, end = self.starts[rows], self.starts[rows + 1]
            at = begin[:, None] + torch.arange(LONGEST)
            inside = at < end[:, None]
            tokens = self.text[at.clamp(max=max(0, len(self.text) - 1))].long() if len(self.text) else torch.zeros_like(at)
            found["caption"] = torch.where(inside, tokens, NOTHING)
        return found


NONE = Conditions()


def captioned(values: Iterable[Any], names: Iterable[str], where: str) -> tuple[Tensor, Tensor]:
    """(uint8 [bytes], int64 [N + 1]) of captions. JobError GTJ0113 for a sample without, and for captions of more than LONGEST bytes: how
    many, and how long the longest is."""
    encoded, long, without = [], [], []
    for value, name in zip(values, names, strict=True):
        if not isinstance(value, str) or not value.strip():
            without.append(name)
            value = ""
        encoded.append(value.encode("utf-8", "replace"))
        if len(encoded[-1]) > LONGEST:
            long.append((len(encoded[-1]), name))
    if without:
        why = f"{len(without)} of {len(encoded)}, the first is {listed(without[:SHOWN], 'and')}"
        raise JobError(
            "GTJ0113", "samples have no caption", where=where, why=why, how="write one for each, or leave them out by data.where"
        )
    if long:
        size, name = max(long)
        why = f"{len(long)} of {len(encoded)}; the longest is that of {name}, {size} bytes"
        raise JobError("GTJ0113", f"captions are longer than {LONGEST} bytes", where=where, why=why, how="shorten them")
    lengths = torch.tensor([0, *map(len, encoded)])
    return torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8), lengths.cumsum(0)
