"""Faults on the wire itself, between the SDK and a real server: one request of three meets one, and nothing is lost, torn or wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3
from second_reader import check

from tests.stores.servers import Service
from tests.stores.wire import FAULTS, Fault, wire
from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, Corrupt, files_below, open_store
from trainjobs.stores import az, gs, s3
from trainjobs.stores.objects import ObjectStore, Patience

pytestmark = pytest.mark.slow
PART = 5 << 20


def save(checkpoints: Checkpoints, attempt: int, step: int, folder: Path, size: int) -> None:
    (folder / "state").mkdir(parents=True, exist_ok=True)
    (folder / "model.pt").write_bytes(os.urandom(size))
    (folder / "state" / "rng.json").write_bytes(f"rng {step}".encode())
    told = checkpoints.put_shard(checkpoints.prefix(step, attempt), 0, files_below(folder))
    prefix = checkpoints.prefix(step, attempt)
    checkpoints.commit(prefix, attempt=attempt, step=step, samples=step, digests=[told], metadata={}, metrics={})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent connection is given up after a second."""
    for module in (s3, az):
        monkeypatch.setattr(module, "ANSWER", 1.0)
    monkeypatch.setattr(gs, "ONCE", {"timeout": (10.0, 1.0), "retry": None})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_save_and_a_resume_get_through(
    server: Service, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    uri = server.fresh()
    with wire(server.port) as between:
        for name, value in server.environ(between.server_port).items():
            monkeypatch.setenv(name, value)
        store = open_store(uri, patience=Patience(120.0, chance=lambda: 0.0))
        assert isinstance(store, ObjectStore)
        store._part = PART
        checkpoints = Checkpoints(store, keep=Keep(last=1))
        between.fault = fault
        attempt = checkpoints.begin()
        save(checkpoints, attempt, 1, tmp_path / "stage", 1000)
        save(checkpoints, attempt, 2, tmp_path / "stage", 2 * PART + 1)
        checkpoints.retain()
        newest = checkpoints.newest()
        assert newest is not None
        checkpoints.fetch(newest, [0], tmp_path / "back")
        assert between.done[fault] >= 3
    objects = server.load(uri)
    view = check(objects)
    assert view.steps == [2]
    assert (tmp_path / "back" / "rank-0" / "model.pt").read_bytes() == objects[f"{newest.prefix}/rank-0/model.pt"]


def test_a_byte_that_flips_on_the_way_down_is_found(server: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = server.fresh()
    with wire(server.port) as between:
        for name, value in server.environ(between.server_port).items():
            monkeypatch.setenv(name, value)
        checkpoints = Checkpoints(open_store(uri), keep=Keep())
        save(checkpoints, checkpoints.begin(), 1, tmp_path / "stage", 100_000)
        newest = checkpoints.newest()
        assert newest is not None
        between.fault, between.every = "damaged answer", 1
        with pytest.raises(Corrupt):
            checkpoints.verify(newest)
        between.fault = None
        checkpoints.verify(newest)


def test_a_byte_that_flips_on_the_way_up_is_refused_or_found(server: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto does not compare checksums: there it is found by the reader. The others refuse it, and it is sent again."""
    uri = server.fresh()
    with wire(server.port) as between:
        for name, value in server.environ(between.server_port).items():
            monkeypatch.setenv(name, value)
        checkpoints = Checkpoints(open_store(uri), keep=Keep())
        attempt = checkpoints.begin()
        between.fault, between.every = "damaged request", 4
        if server.name == "moto":
            between.every = 1
            (tmp_path / "stage").mkdir()
            (tmp_path / "stage" / "model.pt").write_bytes(os.urandom(100_000))
            store = open_store(uri)
            stored = store.upload([(tmp_path / "stage" / "model.pt", "k/model.pt")])
            between.fault = None

            assert stored[0].digest != "blake3:" + blake3(store.get("k/model.pt")).hexdigest()
            return
        for step in range(1, 7):
            save(checkpoints, attempt, step, tmp_path / "stage", 100_000)
        assert between.done["damaged request"] > 5
        between.fault = None
    assert check(server.load(uri)).steps == [1, 2, 3, 4, 5, 6]
