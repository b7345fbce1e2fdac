"""A bucket that answers nothing for a minute amid an epoch: training goes on from what is here, waits, and sees what it would have seen."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.places.memory import Clock, MemoryBucket, Said
from tests.data.real import made
from tests.data.real.recorded import digest
from trainjobs.api.data import Data
from trainjobs.api.errors import JobError
from trainjobs.api.metrics import WAIT
from trainjobs.cli.line import plain
from trainjobs.data.ahead import Ahead
from trainjobs.data.forms.open import open_records
from trainjobs.data.order import chosen
from trainjobs.data.places.bucket import BucketPlace
from trainjobs.data.places.shelf import DiskShelf
from trainjobs.data.rows import everything
from trainjobs.data.streamed import StreamedImages
from trainjobs.objectives.batches import Batches
from trainjobs.objectives.phase import At, Phase
from trainjobs.plan.batch import Cut
from trainjobs.run.numbers import WORTH_TELLING
from trainjobs.state import State
from trainjobs.stores.bucket import Trouble
from trainjobs.stores.patience import Patience
from trainjobs.world import World

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


@dataclass(frozen=True)
class Seen:
    """The digests of an epoch's samples in the order of training; the batches during which requests stayed unanswered; of each step the
    share of its time that it waited for data, by the test's clock; and the silence, which begins amid the epoch."""

    digests: list[str]
    silent: list[int]
    waits: list[float]
    silence: Silence


def never(*_: object) -> Any:
    raise AssertionError("nothing is learned here")


def seen(folder: Path, seconds: float) -> Seen:
    """An epoch in steps that compute for a second each."""
    clock = Together()
    silence = Silence(clock, seconds)
    bucket = MemoryBucket({f"data/{name}": shard for name, shard in made.tars(SHARDS * EACH, EACH).items()}, fault=silence)
    total = sum(map(len, bucket.objects.values()))
    place = BucketPlace(bucket, "s3://bucket/data", "data", None, Patience(PATIENCE, clock, clock.pause, lambda: 0.5))  # type: ignore[arg-type]
    shelf = DiskShelf(folder / "objects", total // 4, wait=20)
    data = Data.model_validate({"source": "s3://bucket/data", "images": {"size": 8}})
    train = everything(open_records(place, place.listed(), data, shelf, folder))
    source = Ahead(StreamedImages.of(train, train, chosen(train, shelf.limit, place.uri), data, shelf, {"image": "png"}), 2)
    steps, phases = SHARDS * EACH // BATCH, [Phase("model", "m", never)]
    batches = Batches(source, 0, Cut(1, BATCH, 1), World(0, 1, torch.device("cpu")), {}, nullcontext(), clock=clock).check(phases)
    found, silent, waits = list[str](), list[int](), list[float]()
    try:
        for number in range(steps):
            if number == steps // 3:
                silence.begin()
            before, done = silence.unanswered, number * BATCH
            for batch, _ in batches.turn(phases[0], 0, State(number, done), At(number, done, steps)):
                clock.pause(1.0)
                found += [digest({"image": image}) for image in batch.data["image"]]
            silent += [number] if silence.unanswered > before else []
            waits.append(batches.wait())
    finally:
        source.close()
    return Seen(found, silent, waits, silence)


def test_a_minute_of_silence_amid_an_epoch_loses_and_doubles_nothing(tmp_path: Path) -> None:
    undisturbed, disturbed = seen(tmp_path / "one", 0.0), seen(tmp_path / "two", 60.0)
    assert undisturbed.silent == []
    assert disturbed.silent
    assert disturbed.silence.unanswered > 1
    assert disturbed.silence.clock() >= disturbed.silence.since + 60.0, "it lasted"
    assert disturbed.digests == undisturbed.digests
    assert Counter(disturbed.digests) == Counter(digest({"image": image}) for image in every_picture(tmp_path / "three"))

    # What waits for data says so: data/wait of that step, and with it the line of progress.
    assert set(undisturbed.waits) == {0.0}
    first = disturbed.silent[0]
    assert set(disturbed.waits[: len(disturbed.waits) // 3]) == {0.0}, "before"
    waited = {number: share for number, share in enumerate(disturbed.waits) if share}
    assert waited
    assert min(waited) >= first
    assert disturbed.waits[-1] == 0.0, "behind"
    longest = max(waited.values())
    assert longest > WORTH_TELLING
    progress = {"phase": "Running", "step": min(waited) + 1, "totalSteps": len(disturbed.waits), "metrics": {WAIT: longest}}
    assert f"waiting for data {100 * longest:.0f} %" in plain("job", progress, elapsed=60.0)


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
