"""A bucket that answers nothing for a minute amid an epoch: training goes on from what is here, waits, and sees what it would have seen."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.data.places.memory import Clock, MemoryBucket, Said
from tests.data.real import made
from tests.data.real.recorded import digest
from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.data.ahead import Ahead
from trainjobs.data.forms.open import open_records
from trainjobs.data.order import chosen
from trainjobs.data.places.bucket import BucketPlace
from trainjobs.data.places.shelf import DiskShelf
from trainjobs.data.rows import everything
from trainjobs.data.streamed import StreamedImages
from trainjobs.noise import Noise
from trainjobs.stores.bucket import Trouble
from trainjobs.stores.patience import Patience

pytestmark = pytest.mark.slow

SHARDS, EACH, BATCH = 40, 12, 20
PATIENCE = 600.0  # seconds, as amid a run


class Together(Clock):
    """For many threads that pause."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def pause(self, seconds: float) -> None:
        with self._lock:
            super().pause(seconds)


class Silence:
    """From `begin` on no request is answered, for so many seconds of the clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.since, self.unanswered = clock, seconds, -1.0, 0

    def begin(self) -> None:
        self.since = self.clock()

    def __call__(self, verb: str, path: str) -> None:
        if self.since >= 0 and self.clock() < self.since + self.seconds:
            self.unanswered += 1
            raise Said(Trouble("busy", "no answer"))


def seen(folder: Path, seconds: float) -> tuple[list[str], list[int], Silence]:
    """The digests of an epoch's samples in the order of training, the batches during which requests stayed unanswered, and the silence,
    which begins amid the epoch."""
    clock = Together()
    silence = Silence(clock, seconds)
    bucket = MemoryBucket({f"data/{name}": shard for name, shard in made.tars(SHARDS * EACH, EACH).items()}, fault=silence)
    total = sum(map(len, bucket.objects.values()))
    place = BucketPlace(bucket, "s3://bucket/data", "data", None, Patience(PATIENCE, clock, clock.pause, lambda: 0.5))  # type: ignore[arg-type]
    shelf = DiskShelf(folder / "objects", total // 4, wait=20)
    data = Data.model_validate({"source": "s3://bucket/data", "images": {"size": 8}})
    train = everything(open_records(place, place.listed(), data, shelf, folder))
    source = Ahead(StreamedImages.of(train, train, chosen(train, shelf.limit, place.uri), data, shelf, {"image": "png"}), 2)
    batches, found, silent = list(torch.arange(SHARDS * EACH).view(-1, BATCH)), list[str](), list[int]()
    try:
        for number, positions in enumerate(batches):
            if number == len(batches) // 3:
                silence.begin()
            before = silence.unanswered
            source.expect(batches[number : number + 4], 0)
            images = source.batch(positions, 0, Noise.of(0, 0, "train", positions))["image"]
            found += [digest({"image": image}) for image in images]
            silent += [number] if silence.unanswered > before else []
    finally:
        source.close()
    return found, silent, silence


def test_a_minute_of_silence_amid_an_epoch_loses_and_doubles_nothing(tmp_path: Path) -> None:
    undisturbed, none, _ = seen(tmp_path / "one", 0.0)
    disturbed, silent, silence = seen(tmp_path / "two", 60.0)
    assert none == []
    assert silent
    assert silence.unanswered > 1
    assert silence.clock() >= 60.0, "it lasted"
    assert disturbed == undisturbed
    assert Counter(disturbed) == Counter(digest({"image": image}) for image in every_picture(tmp_path / "three"))


def every_picture(folder: Path) -> list[torch.Tensor]:
    """All of the data, read in the order in which it lies there."""
    bucket = MemoryBucket({f"data/{name}": shard for name, shard in made.tars(SHARDS * EACH, EACH).items()})
    clock = Clock()
    place = BucketPlace(bucket, "s3://bucket/data", "data", None, Patience(20.0, clock, clock.pause))  # type: ignore[arg-type]
    shelf = DiskShelf(folder / "objects", 1 << 30)
    data = Data.model_validate({"source": "s3://bucket/data", "images": {"size": 8}})
    train = everything(open_records(place, place.listed(), data, shelf, folder))
    source = StreamedImages.of(train, train, chosen(train, shelf.limit, place.uri), data, shelf, {"image": "png"})
    return list(source.plain(torch.arange(SHARDS * EACH), held=False)["image"])


def test_one_that_stays_silent_ends_the_run_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"GTJ0219 the data does not answer .*s3:GetObject failed \d+ times in \d+ s"):
        seen(tmp_path, 1e9)
