"""Data of twenty times the cache: an epoch fetches it hardly more than once, and the disk never takes more than it may."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.places.memory import MemoryBucket, on_disk
from tests.data.places.memory import place as placed
from tests.data.real import made
from tests.data.real.recorded import digest
from trainjobs.api.data import Data
from trainjobs.data.ahead import Ahead
from trainjobs.data.forms.open import open_records
from trainjobs.data.order import chosen
from trainjobs.data.places.shelf import DiskShelf
from trainjobs.data.rows import everything
from trainjobs.data.streamed import StreamedImages
from trainjobs.noise import Noise

SHARDS, EACH = 160, 12


@pytest.mark.parametrize("threads", [0, 3])
def test_an_epoch_of_twenty_times_the_cache(threads: int, tmp_path: Path) -> None:
    bucket = MemoryBucket({f"data/{name}": shard for name, shard in made.tars(SHARDS * EACH, EACH).items()})
    place = placed(bucket, "data")
    total = sum(map(len, bucket.objects.values()))
    limit = total // 20
    shelf = DiskShelf(tmp_path / "fetched", limit, wait=20)
    data = Data.model_validate({"source": "s3://bucket/data", "images": {"size": 8}})
    records = open_records(place, place.listed(), data, shelf, tmp_path)
    indexed = shelf.counts.fetched_bytes
    train = everything(records)
    order = chosen(train, limit, place.uri)
    assert order.kind == "blocks"
    source = Ahead(StreamedImages.of(train, train, order, data, shelf, {"image": "png"}), threads)
    batches = list(torch.arange(SHARDS * EACH).split(25))
    seen, most = set[str](), 0
    for number, positions in enumerate(batches):
        images = source.batch(positions, 0, Noise.of(0, 0, "train", positions))["image"]
        source.expect(batches[number + 1 : number + 3] if threads else (), 0)
        seen |= {digest({"image": image}) for image in images}
        most = max(most, on_disk(tmp_path / "fetched"))
    source.close()
    assert most <= limit
    assert shelf.counts.fetched_bytes - indexed <= 1.1 * total
    assert len(seen) > 0.9 * SHARDS * EACH, "an epoch sees them all, of which few are alike at that size"
