"""A survey of each source of a job's data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from trainjobs.api.job import Spec
from trainjobs.data import open_source, preflight
from trainjobs.data.dataset import Reading, open_dataset
from trainjobs.data.forms.index import silent
from trainjobs.data.found import Found
from trainjobs.data.places.sparing import Sparing, cheap
from trainjobs.data.prepared import line, prepared
from trainjobs.data.survey import LOOKED, Survey, survey


def surveys(spec: Spec, found: Sequence[Found], cache: Path, *, look: int = LOOKED, say: Callable[[str], None] = silent) -> list[Survey]:
    """Of what was found of a job's sources; of data that is built in, of that. The index is kept in `cache`; nothing else is kept."""
    if spec.language and len(found) == 1 and (ready := prepared(spec, found[0])) is not None:
        info = open_source(spec, cache, found).info  # samples are sequences
        return [Survey(found[0].uri, (line(ready),), (), info.length, info.heldout, len(ready.shards), ready.total("bytes"))]
    if not found:
        words, info = preflight(spec), open_source(spec, cache).info
        return [Survey(spec.data.uri, (words,), (), info.length, info.heldout, 0, 0)]
    with tempfile.TemporaryDirectory(prefix="gtj-data-") as looked:
        return [_survey(spec, one, Reading(cache, say=say), Sparing(Path(looked)), look) for one in found]


def _survey(spec: Spec, found: Found, reading: Reading, shelf: Sparing, look: int) -> Survey:
    dataset = open_dataset(spec, found, reading, shelf)
    records, words = dataset.records, [*found.words, *([f"held out {found.elsewhere}"] if found.elsewhere else [])]
    total = sum(block.rows for block in records.blocks)
    # Of text it is parts of documents that are held out, not documents.
    exact = dataset.apart is not None or (dataset.kind != "text" and cheap(dataset.objects))
    held = len(dataset.sides(reading)[1]) if exact else round(total * spec.data.holdout)
    return survey(records, dataset.recognised, shelf, total - held, held, words, exact=exact, look=look)
