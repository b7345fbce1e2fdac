"""Data of twenty times the cache: an epoch fetches it hardly more than once, and the disk never takes more than it may."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from tests.data.places.memory import Counting, MemoryBucket, on_disk
from tests.data.places.memory import place as placed
from tests.data.real import made
from tests.data.real.recorded import digest
from trainjobs.api.data import Data
from trainjobs.data.ahead import Ahead
from trainjobs.data.forms.open import open_records
from trainjobs.data.order import chosen
from trainjobs.data.places.shelf import DiskShelf
from trainjobs.data.rows import divided, everything
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


def test_a_pass_over_held_out_samples_fetches_them_alone(tmp_path: Path) -> None:
    """One in twelve lies in every shard: whole shards would be all of the data, for each evaluation."""
    bucket = Counting({f"data/{name}": shard for name, shard in made.tars(SHARDS * EACH, EACH).items()})
    place = placed(bucket, "data")
    total = sum(map(len, bucket.objects.values()))
    shelf = DiskShelf(tmp_path / "fetched", total // 20, wait=20)
    data = Data.model_validate({"source": "s3://bucket/data", "images": {"size": 8}, "holdout": 1 / 12})
    records = open_records(place, place.listed(), data, shelf, tmp_path)
    train, held = divided(records, data, "image")
    source = StreamedImages.of(train, held, chosen(train, total // 20, place.uri), data, shelf, {"image": "png"})
    for positions in torch.arange(64).split(16):
        source.batch(positions, 0, Noise.of(0, 0, "train", positions))
    shelf.close()  # what is told to come next is not what is counted
    ends = time.monotonic() + 20
    while shelf._fetchers:
        assert time.monotonic() < ends
        threading.Event().wait(0.002)
    before, bucket.sent = shelf.counts.fetched, 0
    for indices in torch.arange(len(held)).split(64):
        assert len(source.heldout_batch(indices)["image"]) == len(indices)
    payload = sum(len(made.picture(number)) for number in range(SHARDS * EACH)) * len(held) / (SHARDS * EACH)
    assert shelf.counts.fetched == before, "the room is for what is trained on"
    assert 0.8 * payload < bucket.sent < 1.2 * payload
    assert bucket.sent < 0.1 * total
    source.close()
