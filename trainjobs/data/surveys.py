"""A survey of each source of a job's data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from trainjobs.api.job import Spec
from trainjobs.data import open_source, preflight
from trainjobs.data.dataset import Dataset, Reading, open_dataset
from trainjobs.data.forms.index import silent
from trainjobs.data.found import Found
from trainjobs.data.places.sparing import Sparing, cheap
from trainjobs.data.prepared import line, prepared
from trainjobs.data.source import DataInfo
from trainjobs.data.survey import LOOKED, Survey, survey


def surveys(
    spec: Spec,
    found: Sequence[Found],
    cache: Path,
    *,
    look: int = LOOKED,
    say: Callable[[str], None] = silent,
    datasets: Sequence[Dataset] = (),
    info: DataInfo | None = None,
) -> list[Survey]:
    """Of what was found of a job's sources; of data that is built in, of that. The index is kept in `cache`; nothing else is kept. Whoever
    has opened the data gives what came of it, `datasets` and `info`, and it is not opened again."""
    if spec.reads_text and len(found) == 1 and (ready := prepared(spec, found[0])) is not None:
        info = info or open_source(spec, cache, found).info  # samples are sequences
        return [Survey(found[0].uri, (line(ready),), (), info.length, info.heldout, len(ready.shards), ready.total("bytes"))]
    if not found:
        words, info = preflight(spec), info or open_source(spec, cache).info
        return [Survey(spec.data.uri, (words,), (), info.length, info.heldout, 0, 0)]
    with tempfile.TemporaryDirectory(prefix="gtj-data-") as looked:
        reading, shelf = Reading(cache, say=say), Sparing(Path(looked))
        opened = datasets or [open_dataset(spec, one, reading, shelf) for one in found]
        return [_survey(spec, one, reading, shelf, look) for one in opened]


def _survey(spec: Spec, dataset: Dataset, reading: Reading, shelf: Sparing, look: int) -> Survey:
    found = dataset.found
    records, words = dataset.records, [*found.words, *([f"held out {found.elsewhere}"] if found.elsewhere else [])]
    total = sum(block.rows for block in records.blocks)
    # Of text it is parts of documents that are held out, not documents.
    exact = dataset.apart is not None or (dataset.kind != "text" and cheap(dataset.objects))
    held = len(dataset.sides(reading)[1]) if exact else round(total * spec.data.holdout)
    shapes: tuple[tuple[str, int], ...] = ()
    if spec.data.images.buckets is not None and dataset.kind == "image" and exact:  # of what is far away nobody looks at every picture
        from trainjobs.data.bucketed import assigned  # which imports torch, and a table needs none

        batch = spec.training.batch
        found_shapes = assigned(dataset.sides(reading)[0], dataset, reading, shelf, batch.micro or batch.global_)
        shapes, words = found_shapes.filled, [*words, found_shapes.said]
    return survey(records, dataset.recognised, shelf, total - held, held, words, exact=exact, look=look, buckets=shapes)
