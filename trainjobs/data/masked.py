"""Texts of which tokens are to be masked, a piece to a row.

A batch: "tokens" int64 [B, L], filled up behind to the longest row; "seen" int64 [B, L], 1 where there is a token; "maskable" int64 [B, L],
1 where that stands for text, not for the beginning or the end of one. Which of them are masked is no matter of the data: see
objectives/language/masked.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainjobs.data.answers import Numbers, filled
from trainjobs.data.numbered_sequences import NumberedSource, sides
from trainjobs.data.sequences import Sequences
from trainjobs.data.source import DataInfo


@dataclass(frozen=True, eq=False)
class MaskedSource(NumberedSource):
    """Records are pieces."""

    def _rows(self, numbers: Numbers) -> dict[str, Tensor]:
        own = self.sequences
        spans = [slice(int(own.starts[number]), int(own.starts[number + 1])) for number in numbers]
        width = max(span.stop - span.start for span in spans)
        seen = [np.ones(span.stop - span.start, np.int64) for span in spans]
        found = {
            "tokens": filled([own.tokens[span] for span in spans], width, self.pad),
            "seen": filled(seen, width, 0),
            "maskable": filled([own.learned[span].astype(np.int64) for span in spans], width, 0),
        }
        return {name: torch.from_numpy(value) for name, value in found.items()}


def open_masked(sequences: Sequences, info: DataInfo, pad: int) -> MaskedSource:
    return MaskedSource(*sides(sequences, info), pad)
