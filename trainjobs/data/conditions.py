"""What a picture shows, beside it: its class, and its caption.

A class is a number: as it stands where the data has numbers, else the place of its word among all words, sorted. A caption is its bytes
of UTF-8, one token each, padded with NOTHING: tokenizers of text encoders decode it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.problem import listed
from trainjobs.data import digits, shapes
from trainjobs.data.captions import LONGEST, NOTHING
from trainjobs.data.wanted import carried, longest

SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Conditions:
    """Of N rows. `label` is int64 [N], `classes` their names, by number, where they have some; `text` and `starts` hold the captions one
    behind the other: uint8 [bytes], int64 [N + 1]."""

    label: Tensor | None = None
    classes: tuple[str, ...] = ()
    text: Tensor | None = None
    starts: Tensor | None = None
    length: int = LONGEST  # of a caption in a batch

    def of(self, rows: Tensor) -> dict[str, Tensor]:
        """{"label": int64 [B], "caption": int64 [B, length]}, or what of them there is, for int64 [B], on the CPU."""
        found = {}
        if self.label is not None:
            found["label"] = self.label[rows]
        if self.text is not None and self.starts is not None:
            begin, end = self.starts[rows], self.starts[rows + 1]
            at = begin[:, None] + torch.arange(self.length)
            inside = at < end[:, None]
            tokens = self.text[at.clamp(max=max(0, len(self.text) - 1))].long() if len(self.text) else torch.zeros_like(at)
            found["caption"] = torch.where(inside, tokens, NOTHING)
        return found


NONE = Conditions()


def of_builtin(spec: Spec) -> Conditions:
    """What the job wants to know of built-in pictures."""
    wanted, name = carried(spec), spec.data.uri
    if name == "builtin:digits":
        if "caption" in wanted and not spec.custom:
            how = "use conditioning.type: class, or builtin:shapes"
            raise JobError("GTJ0113", "the digits have no captions", where="data.source", why="they have labels alone", how=how)
        return Conditions(torch.from_numpy(digits.labels()), tuple("0123456789")) if "label" in wanted else NONE
    found = NONE
    if "label" in wanted:
        found = Conditions(torch.arange(shapes.COUNT) % len(shapes.SHAPES), shapes.SHAPES)
    if "caption" in wanted:
        texts = shapes.captions(spec.data.images.channels)
        text, starts = captioned(texts, map(str, range(len(texts))), name, longest(spec))
        found = replace(found, text=text, starts=starts, length=longest(spec))
    return found


def captioned(values: Iterable[Any], names: Iterable[str], where: str, most: int = LONGEST) -> tuple[Tensor, Tensor]:
    """(uint8 [bytes], int64 [N + 1]) of captions. JobError GTJ0113 for a sample without, and for captions of more than `most` bytes: how
    many, and how long the longest is."""
    encoded, long, without = [], [], []
    for value, name in zip(values, names, strict=True):
        if not isinstance(value, str) or not value.strip():
            without.append(name)
            value = ""
        encoded.append(value.encode("utf-8", "replace"))
        if len(encoded[-1]) > most:
            long.append((len(encoded[-1]), name))
    if without:
        why = f"{len(without)} of {len(encoded)}, the first is {listed(without[:SHOWN], 'and')}"
        raise JobError(
            "GTJ0113", "samples have no caption", where=where, why=why, how="write one for each, or leave them out by data.where"
        )
    if long:
        size, name = max(long)
        why = f"{len(long)} of {len(encoded)}; the longest is that of {name}, {size} bytes"
        how = "shorten them" if most == LONGEST else f"shorten them, or set diffusion.conditioning.length to {min(size, LONGEST)}"
        raise JobError("GTJ0113", f"captions are longer than {most} bytes", where=where, why=why, how=how)
    lengths = torch.tensor([0, *map(len, encoded)])
    return torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8), lengths.cumsum(0)
