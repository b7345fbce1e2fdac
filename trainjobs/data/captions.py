"""Captions as tokens: their UTF-8 bytes, filled up to one length for all batches of a run. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainjobs.api.errors import JobError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NOTHING = 256  # what stands behind a caption's end: no byte
LONGEST = 512  # bytes


def tokens(texts: Sequence[str], length: int, where: Sequence[str]) -> npt.NDArray[np.int64]:
    """int64 [len(texts), length]; `where` names each. JobError GTJ0113 when some are longer."""
    import numpy as np

    rows = np.full((len(texts), length), NOTHING, np.int64)
    encoded = [text.encode("utf-8", "replace") for text in texts]
    long = [number for number, row in enumerate(encoded) if len(row) > length]
    if long:
        most = max(len(encoded[number]) for number in long)
        why = f"{len(long)} of the {len(texts)} that were read together, up to {most} bytes; this is the first"
        how = "shorten them; or name another column by data.columns.caption"
        raise JobError("GTJ0113", f"captions are longer than {length} bytes", where=where[long[0]], why=why, how=how)
    for row, found in zip(rows, encoded, strict=True):
        row[: len(found)] = np.frombuffer(found, np.uint8)
    return rows
