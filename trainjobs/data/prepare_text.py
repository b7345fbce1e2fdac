"""Documents as tokens, in Parquet: one row for each that is encoded by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.dataset import Dataset
from trainjobs.data.documents import PIECE, Row, divided, of, settings
from trainjobs.data.files import fingerprinted
from trainjobs.data.job_template import unused
from trainjobs.data.places.place import Shelf
from trainjobs.data.pretrained_tokenizer import pretrained_tokenizer
from trainjobs.data.text import encoded
from trainjobs.data.tokens import Tokenizer, open_tokenizer, read_tokenizer

ROWS = 4096  # of a row group, at most


def tokenizer_for(spec: Spec, dataset: Dataset, shelf: Shelf, cache: Path, trained: bytes | None) -> Tokenizer:
    """The tokenizer that a run on the data would have: that of its base, else one that is trained on it. `trained` is the file of the one
    that was, in work that goes on. JobError GTJ0108 where the base has another one now."""
    if (base := settings(spec).base) is not None:
        unused(settings(spec), "plain text")
        own = pretrained_tokenizer(base, cache)
        if trained is not None and trained != own.file:
            how = "prepare into a new folder, or give the base the tokenizer that it had"
            raise JobError("GTJ0108", "the base's tokenizer has changed since a part was prepared", where=base.source, how=how)
        return own
    if trained is not None:
        return read_tokenizer(trained)
    asked = settings(spec).tokenizer
    name = fingerprinted([dataset.key], tokenizer=[asked.type, asked.vocabulary_size])
    return open_tokenizer(asked, of(dataset, shelf).trained(), cache / f"tokenizer-{name}.json")


@dataclass(frozen=True)
class Tokens:
    dataset: Dataset
    shelf: Shelf
    tokenizer: Tokenizer
    holdout: float

    def write(self, blocks: range, part: range | None, path: Path) -> dict[str, Any]:
        """The columns tokens (end of text included), name (of the document) and held; a document of which a share is held out makes a row
        for each of its parts, as a run would encode them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([("tokens", pa.list_(pa.int32())), ("name", pa.string()), ("held", pa.bool_())])
        names: list[str] = []
        rows = tokens = 0
        counts = {"pieces": 0, "divided": 0}

        def parts() -> Iterator[tuple[bool, str]]:
            for name, text, apart in of(self.dataset, self.shelf, blocks, part).read():
                counts["pieces"] += -(-len(text) // PIECE)
                made = [(apart, text)] if self.dataset.apart is not None or not self.holdout else [*divided(name, text, self.holdout)]
                counts["divided"] += len(made) > 1
                names.extend([name] * len(made))
                yield from made

        with pq.ParquetWriter(path, schema, compression="zstd") as file:
            group: list[Row] = []

            def flush() -> None:
                values = np.concatenate([row for _, row in group])
                offsets = np.cumsum([0, *(len(row) for _, row in group)], dtype=np.int32)
                column = pa.ListArray.from_arrays(offsets, pa.array(values, pa.int32()))
                held = pa.array([held for held, _ in group])
                file.write_table(pa.table([column, pa.array(names[: len(group)], pa.string()), held], schema=schema))
                del names[: len(group)]
                group.clear()

            for is_held, row in encoded(self.tokenizer, parts()):
                group.append((is_held, row))
                rows, tokens = rows + 1, tokens + len(row)
                if len(group) == ROWS:
                    flush()
            if group:
                flush()
        return {"rows": rows, "tokens": tokens, **counts}
