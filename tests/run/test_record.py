"""A run's record in its checkpoint store: what is sent, and the run folder that is put together from it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.run.folder import Run
from trainjobs.run.record import Record
from trainjobs.run.recorded import fetch, runs
from trainjobs.stores.file import FileStore
from trainjobs.stores.store import Stored, StoreError


class Store(FileStore):
    """A folder that counts what comes, and can be away."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.keys: list[str] = []
        self.away = False

    def upload(self, files: Sequence[tuple[Path, str]]) -> list[Stored]:
        if self.away:
            raise StoreError(files[0][1], "it is away")
        self.keys += [key for _, key in files]
        return super().upload(files)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "logs").mkdir(parents=True)
    (folder / "samples").mkdir()
    (folder / "job.json").write_text(json.dumps({"metadata": {"name": "faces"}, "spec": {"vae": {}}}))
    return folder


def rows(path: Path, *steps: int, **more: Any) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps({"step": step, **more}) + "\n" for step in steps)


def put_together(store: Store, tmp_path: Path) -> Run:
    number = len(list(tmp_path.glob("got-*")))
    return Run(fetch(store, tmp_path / f"got-{number}"))


def test_what_grows_is_sent_in_pieces_and_only_once(store: Store, run: Path, tmp_path: Path) -> None:
    record = Record(run, store)
    rows(run / "metrics.jsonl", 1, 2)
    (run / "logs" / "driver.log").write_text("one\n")
    (run / "samples" / "step-000002.png").write_bytes(b"png")
    assert record.look() == 4
    assert record.look() == 0, "nothing is new"
    rows(run / "metrics.jsonl", 3)
    with (run / "logs" / "driver.log").open("a") as file:
        file.write("two\n")
    assert record.look() == 2
    assert len(set(store.keys)) == len(store.keys)
    got = put_together(store, tmp_path)
    assert [row["step"] for row in got.metrics()] == [1, 2, 3]
    assert got.driver_log.read_text() == "one\ntwo\n"
    assert (got.path / "samples" / "step-000002.png").read_bytes() == b"png"
    assert (got.name, got.place) == ("faces", store.uri)


def test_a_file_that_was_written_anew_begins_again(store: Store, run: Path, tmp_path: Path) -> None:
    """As metrics.jsonl when a run goes back: shorter at first, then longer than ever, and another file."""
    record = Record(run, store)
    rows(run / "metrics.jsonl", 1, 2, 3)
    record.look()
    rows(run / "new", 1)
    (run / "new").replace(run / "metrics.jsonl")
    rows(run / "metrics.jsonl", 2, 3, 4, 5, after=True)
    record.look()
    rows(run / "metrics.jsonl", 6, after=True)
    record.look()
    assert put_together(store, tmp_path).metrics() == [{"step": 1}, *({"step": step, "after": True} for step in range(2, 7))]


def test_a_store_that_was_away_gets_all_of_it_later(store: Store, run: Path, tmp_path: Path) -> None:
    record = Record(run, store)
    rows(run / "metrics.jsonl", 1)
    record.look()
    store.away = True
    rows(run / "metrics.jsonl", 2)
    with pytest.raises(StoreError):
        record.look()
    rows(run / "metrics.jsonl", 3)
    store.away = False
    record.look()
    assert [row["step"] for row in put_together(store, tmp_path).metrics()] == [1, 2, 3]


def test_pieces_end_at_the_limit_and_the_state_goes_on(store: Store, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainjobs.run.record.PIECE", 1000)
    record = Record(run, store, limit=300)
    for number in range(50):
        (run / "progress.json").write_text(json.dumps({"step": number}))
        with (run / "logs" / "driver.log").open("ab") as file:
            file.write(os.urandom(200))
        record.look()
    assert record.full
    got = put_together(store, tmp_path)
    assert got.progress() == {"step": 49}
    kept = got.driver_log.read_bytes()
    assert 0 < len(kept) < 1500
    assert (run / "logs" / "driver.log").read_bytes().startswith(kept)


def test_attempts_are_put_together(store: Store, run: Path, tmp_path: Path) -> None:
    """The second went on from step 2 in a folder of its own: what the first measured behind it did not happen."""
    rows(run / "metrics.jsonl", 1, 2, 3, 4, of=1)
    (run / "attempts.jsonl").write_text('{"event": "started"}\n')
    (run / "logs" / "driver.log").write_text("first\n")
    (run / "logs" / "stacks-0.txt").write_text("a stack\n")
    (run / "failure.json").write_text('{"code": "GTJ0213"}')
    (run / "progress.json").write_text('{"phase": "Failed"}')
    Record(run, store, "a1").look()
    for path in ("metrics.jsonl", "attempts.jsonl", "logs/driver.log", "logs/stacks-0.txt", "failure.json"):
        (run / path).unlink()
    rows(run / "metrics.jsonl", 3, 4, 5, of=2)
    (run / "attempts.jsonl").write_text('{"event": "resumed"}\n')
    (run / "logs" / "driver.log").write_text("second\n")
    (run / "progress.json").write_text('{"phase": "Succeeded", "updatedAt": 1}')
    Record(run, store, "a2").look()
    got = put_together(store, tmp_path)
    assert [(row["step"], row["of"]) for row in got.metrics()] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
    assert [row["event"] for row in got.attempts()] == ["started", "resumed"]
    assert got.driver_log.read_text() == "first\nsecond\n"
    assert (got.path / "logs" / "attempt-1" / "stacks-0.txt").read_text() == "a stack\n"
    assert (got.phase(), got.failure()) == ("Succeeded", None)


def test_a_run_of_which_nobody_says_anything_any_more_was_interrupted(store: Store, run: Path, tmp_path: Path) -> None:
    (run / "progress.json").write_text('{"phase": "Running", "updatedAt": 5}')
    Record(run, store).look()
    assert put_together(store, tmp_path).phase() == "Interrupted"
    (run / "progress.json").write_text('{"phase": "Running", "updatedAt": 1e11}')
    Record(run, store).look()
    assert put_together(store, tmp_path).phase() == "Running"


def test_a_torn_piece_ends_its_file_and_nothing_climbs_out(store: Store, run: Path, tmp_path: Path) -> None:
    record = Record(run, store)
    for step in (1, 2, 3):
        rows(run / "metrics.jsonl", step)
        record.look()
    pieces = [path for path in sorted((tmp_path / "store" / "run" / "a1").iterdir()) if path.name.startswith("metrics")]
    pieces[1].write_bytes(pieces[1].read_bytes()[:-9])
    (tmp_path / "store" / "run" / "a1" / "..\\up").write_text("x")
    assert [row["step"] for row in put_together(store, tmp_path).metrics()] == [1]
    assert not list(tmp_path.rglob("up"))


def test_runs_below_a_place(store: Store, run: Path, tmp_path: Path) -> None:
    Record(run, FileStore(tmp_path / "store" / "one")).look()
    (tmp_path / "store" / "two" / "log").mkdir(parents=True)
    assert runs(store) == ["one"]
    with pytest.raises(JobError, match="GTJ0118 no record of a run"):
        fetch(FileStore(tmp_path / "store" / "two"), tmp_path / "got")


def test_a_later_process_goes_on_in_the_same_folder(store: Store, run: Path, tmp_path: Path) -> None:
    """Of a run that goes on in its run folder: what was sent in pieces before is part of its files already."""
    rows(run / "metrics.jsonl", 1, 2)
    Record(run, store).look()
    rows(run / "metrics.jsonl", 3)
    again = Record(run, store)
    again.look()
    rows(run / "metrics.jsonl", 4)
    again.look()
    assert [row["step"] for row in put_together(store, tmp_path).metrics()] == [1, 2, 3, 4]


def test_what_an_earlier_process_sent_counts(store: Store, run: Path, tmp_path: Path) -> None:
    rows(run / "metrics.jsonl", *range(100))
    Record(run, store).look()
    sent = sum(path.stat().st_size for path in (tmp_path / "store").rglob("metrics.jsonl@*"))
    later = Record(run, store, limit=sent)
    later.look()
    assert later.full
