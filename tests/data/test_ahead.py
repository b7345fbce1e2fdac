"""Batches prepared ahead: the same with any number of threads, no more than told of, and each error where its batch is asked for."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.data.streams import Kept, Pictures, greys, streamed
from trainjobs import loop
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.data import curriculum
from trainjobs.data.ahead import BYTES, Ahead, Expecting, Preparing, close, threads
from trainjobs.data.bad import BadSamples
from trainjobs.data.mixed import Mixed
from trainjobs.data.order import Order
from trainjobs.data.source import DataInfo, Source
from trainjobs.noise import Noise
from trainjobs.world import World

PATIENCE = 30.0  # seconds, for what happens at once


def stretches(count: int, size: int, start: int = 0) -> list[Tensor]:
    return [torch.arange(start + size * number, start + size * (number + 1)) for number in range(count)]


def read(source: Source, batches: list[Tensor], seed: int = 1) -> list[dict[str, Tensor]]:
    """As training does: told what comes, then asked for it."""
    found = []
    for number, positions in enumerate(batches):
        if isinstance(source, Expecting):
            source.expect(batches[number : number + 1 + source.depth(positions)], seed)
        found.append(source.batch(positions, seed, Noise.of(0, number, "train", positions)))
    return found


class Numbers:
    """Counts what is prepared, and waits where it is told to."""

    info = DataInfo("point", (2,), 1000, 0)

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.by: set[str] = set()
        self.gate = threading.Event()
        self.changed = threading.Condition()

    def rows(self, positions: Tensor, seed: int) -> Tensor:
        first = int(positions[0])
        with self.changed:
            self.begun.append(first)
            self.by.add(threading.current_thread().name)
            self.changed.notify_all()
        if first < 0:
            raise JobError("GTJ0113", f"batch {first} is broken")
        if threading.current_thread() is not threading.main_thread():
            assert self.gate.wait(PATIENCE)
        return positions.clone()

    def made(self, rows: Tensor, noise: Noise) -> dict[str, Tensor]:
        return {"at": rows}

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        return self.made(self.rows(positions, seed), noise)

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {"at": indices}

    def until(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, PATIENCE)


@pytest.mark.parametrize("order", [Order(), Order("blocks", 2, 2)], ids=["whole", "blocks"])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_batch_is_the_same_with_any_number_of_threads(tmp_path: Path, order: Order, mixed: bool) -> None:
    def source(name: str) -> Preparing:
        bad = BadSamples(tmp_path / name, 300, "s3://bucket")
        records = Pictures([40, 20, 37], broken={3, 55})
        one = streamed(
            records, order, bad=bad, images={"augment": ["horizontalFlip"]}, roles={"image": "png", "caption": "txt"}, caption=12
        )
        return Mixed.of((one, one), (1.0, 2.0), ("s3://a", "s3://b")) if mixed else one

    batches = stretches(23, 9)
    expected = [source("alone").batch(rows, 1, Noise.of(0, number, "train", rows)) for number, rows in enumerate(batches)]
    for count in (0, 1, 2, 5):
        ahead = Ahead(source(f"{count}"), count)
        for found, wanted in zip(read(ahead, batches), expected, strict=True):
            assert found.keys() == wanted.keys() == {"image", "caption"}
            assert all(torch.equal(found[name], wanted[name]) for name in found)
        ahead.close()


def test_the_next_batches_are_prepared_while_a_step_is_made() -> None:
    source = Numbers()
    source.gate.set()
    ahead, batches = Ahead(source, 2), stretches(9, 10)
    assert ahead.depth(batches[0]) == 4
    ahead.expect(batches[:5], 0)
    ahead.batch(batches[0], 0, Noise.of(0, 0, "train", batches[0]))
    source.until(5)  # nobody asks for another one meanwhile
    assert sorted(source.begun) == [0, 10, 20, 30, 40]
    assert all(name.startswith("data") for name in source.by)
    ahead.close()


def test_no_more_is_prepared_than_was_told_of() -> None:
    source = Numbers()
    source.gate.set()
    ahead = Ahead(source, 3)
    batches = stretches(30, 4)
    for number, positions in enumerate(batches):
        ahead.expect(batches[number : number + 3], 0)
        assert len(ahead._prepared) <= 3
        assert ahead.batch(positions, 0, Noise.of(0, 0, "t", positions))["at"].tolist() == positions.tolist()
        assert max(source.begun) <= int(positions[0]) + 8
    assert sorted(source.begun) == [int(positions[0]) for positions in batches]  # each once
    ahead.close()


def test_without_threads_a_batch_is_prepared_in_the_step() -> None:
    source = Numbers()
    found = read(Ahead(source, 0), stretches(3, 4))
    assert [rows["at"][0].item() for rows in found] == [0, 4, 8]
    assert source.by == {threading.current_thread().name}


def test_what_is_no_longer_wanted_is_dropped() -> None:
    source = Numbers()
    ahead = Ahead(source, 1)
    ahead.expect(stretches(3, 10), 0)
    source.until(1)  # the only thread holds the first one at the gate
    back = stretches(2, 10, 500)
    ahead.expect(back, 0)
    source.gate.set()
    for positions in back:
        assert ahead.batch(positions, 0, Noise.of(0, 0, "t", positions))["at"].tolist() == positions.tolist()
    assert source.begun == [0, 500, 510]
    ahead.close()


def test_what_nobody_told_of_is_prepared_all_the_same() -> None:
    source = Numbers()
    positions = torch.arange(3)
    assert Ahead(source, 2).batch(positions, 0, Noise.of(0, 0, "t", positions))["at"].tolist() == [0, 1, 2]


def test_an_error_is_raised_in_the_step_that_needs_the_batch() -> None:
    source = Numbers()
    source.gate.set()
    ahead, batches = Ahead(source, 2), [torch.arange(4), torch.arange(4, 8), torch.arange(-4, 0)]
    ahead.expect(batches, 0)
    source.until(3)
    for positions in batches[:2]:
        assert ahead.batch(positions, 0, Noise.of(0, 0, "t", positions))["at"].tolist() == positions.tolist()
    with pytest.raises(JobError, match="GTJ0113 batch -4 is broken"):
        ahead.batch(batches[2], 0, Noise.of(0, 0, "t", batches[2]))
    ahead.close()


def test_large_batches_are_few() -> None:
    ahead = Ahead(Numbers(), 8)
    assert ahead.depth(torch.arange(10)) == 16
    assert ahead.depth(torch.zeros(1).expand(BYTES // 2 // 5)) == 5
    assert ahead.depth(torch.zeros(1).expand(BYTES)) == 2
    ahead.close()


def test_what_the_source_knows_is_passed_on() -> None:
    inner = streamed(Pictures([40]), Order(), holdout=0.2)
    ahead = Ahead(inner, 1)
    assert ahead.info is inner.info
    assert greys(ahead.heldout_batch(torch.arange(2))) == greys(inner.heldout_batch(torch.arange(2)))
    assert torch.equal(ahead.conditions(torch.arange(4))["label"], inner.conditions(torch.arange(4))["label"])
    assert Ahead(Numbers(), 0).conditions(torch.arange(4)) == {}
    ahead.close()


def test_threads_are_those_asked_for_or_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert (threads(None, 1), threads(None, 3), threads(None, 16), threads(0, 1), threads(5, 16)) == (8, 2, 1, 0, 5)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_end_of_a_run_ends_what_is_fetched(mixed: bool) -> None:
    shelf = Kept()
    one = streamed(Pictures([40]), Order(), shelf=shelf)
    ahead = Ahead(Mixed.of((one, one), (1.0, 1.0), ("s3://a", "s3://b")) if mixed else one, 2)
    ahead.expect(stretches(5, 4), 0)
    close(ahead)
    assert shelf.closed
    assert ahead._prepared == {}
    close(Numbers())  # which has nothing to end


@pytest.mark.parametrize("error", [JobError("GTJ0214", "a model that cannot be made"), KeyboardInterrupt()])
def test_a_run_that_fails_ends_what_is_fetched(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Kept()

    def refused(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(loop, "connect", lambda world: None)
    monkeypatch.setattr(curriculum, "ahead", lambda opened, asked, world: Ahead(streamed(Pictures([40]), Order(), shelf=shelf), 1))
    monkeypatch.setattr(loop, "built", refused)
    spec = {"gan": {}, "data": {"source": "builtin:ring"}, "training": {"steps": 1}}
    job = Job.model_validate(
        {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    )
    with pytest.raises(type(error)):
        loop.train(job, tmp_path, World(0, 1, torch.device("cpu")))
    assert shelf.closed


def test_whoever_waits_for_a_batch_is_told_so_until_it_is_there() -> None:
    """Of one that was prepared ahead, of one that was not, and of an error that comes late."""
    inner = Numbers()
    ahead, told = Ahead(inner, 2, every=0.01), list[float]()

    def late(seconds: float) -> None:
        told.append(seconds)
        if len(told) >= 3:
            inner.gate.set()

    first, second, broken = torch.arange(4), torch.arange(4, 8), torch.arange(-4, 0)
    ahead.tell(late)
    ahead.expect([first], 1)
    assert ahead.batch(first, 1, Noise.of(0, 0, "t", first))["at"].tolist() == first.tolist()
    assert len(told) >= 3
    assert told == sorted(told)
    inner.gate.clear()
    told.clear()
    assert ahead.batch(second, 1, Noise.of(0, 1, "t", second))["at"].tolist() == second.tolist()
    assert len(told) >= 3
    with pytest.raises(JobError, match="batch -4 is broken"):
        ahead.batch(broken, 1, Noise.of(0, 2, "t", broken))
    ahead.close()
