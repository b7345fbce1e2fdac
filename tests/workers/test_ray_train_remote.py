"""A worker in a pod of its own: its folder, and what it asks of the driver's side, with a collector that is no actor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.run import failures, progress
from trainjobs.workers.ray_train import remote
from trainjobs.workers.relay import Collector

KNOWN = JobError("GTJ0207", "loss not finite", where="step 7", how="lower the rate")


@pytest.mark.parametrize(("run", "folder"), [("gentrain-0f3c", "gentrain-0f3c_2"), ("faces", "gentrain-faces_2")])
def test_a_workers_folder_is_named_for_the_run_and_the_rank(run: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(tmp_path))
    assert remote.own_folder(tmp_path / "driver" / run, "{}", 2) == tmp_path / folder


def test_a_workers_folder_is_emptied_and_keeps_checkpoints_where_the_driver_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    run, left = tmp_path / "mounted" / "gentrain-0f3c", tmp_path / "tmp" / "gentrain-0f3c_0"
    (left / "logs").mkdir(parents=True)
    (left / "metrics.jsonl").write_text("of another group")
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "kept").touch()
    folder = remote.own_folder(run, '{"kind": "x"}', 0)
    assert sorted(path.name for path in folder.iterdir()) == ["cache", "checkpoints", "job.json", "logs"]
    assert (folder / "job.json").read_text() == '{"kind": "x"}'
    assert folder.stat().st_mode & 0o777 == 0o700, "a job may name secrets"
    (folder / "checkpoints" / "new").touch()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["kept", "new"]
    remote.own_folder(run, "{}", 0)
    assert (run / "checkpoints" / "kept").exists(), "what the link leads to is not emptied"


def test_workers_of_a_machine_share_a_cache_that_outlives_their_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    run = tmp_path / "gentrain-0f3c"
    first, second = (remote.own_folder(run, "{}", rank) for rank in (0, 1))
    (first / "cache" / "fetched").write_text("an object")
    assert (second / "cache" / "fetched").read_text() == "an object"
    again = remote.own_folder(run, "{}", 0)
    assert (again / "cache" / "fetched").read_text() == "an object", "the next group finds it"
    assert (again / "cache").resolve().stat().st_mode & 0o777 == 0o700
    other = remote.own_folder(tmp_path / "gentrain-77aa", "{}", 0)
    assert not (other / "cache" / "fetched").exists(), "another run has its own"


class Actor:
    """A Collector called as an actor is: `actor.method.remote(...)` gives a reference."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.asked: list[str] = []

    def __getattr__(self, method: str) -> SimpleNamespace:
        def call(*arguments: Any) -> tuple[Any]:
            self.asked.append(method)
            return (getattr(self._collector, method)(*arguments),)

        return SimpleNamespace(remote=call)


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path, Actor, remote.Away]]:
    """The driver's folder, the worker's, what is between them, and the ledger of the worker."""
    driver, folder = tmp_path / "driver", tmp_path / "worker"
    driver.mkdir()
    folder.mkdir()
    failures.begin(driver, 1.5)
    actor = Actor(Collector(str(driver), 1.5))
    monkeypatch.setattr(remote.ray, "get", lambda reference, timeout: reference[0])
    with remote.Away(actor, 1.5, folder) as away:
        yield driver, folder, actor, away


def test_a_group_that_may_train_gets_what_the_ones_before_left_and_is_carried_after(
    sides: tuple[Path, Path, Actor, remote.Away],
) -> None:
    driver, folder, _, away = sides
    progress.update(driver, step=7)
    assert away.verdict(0) is None
    assert progress.read(folder / "progress.json")["step"] == 7
    assert "workers" in progress.read(folder / "timeline.json")
    (folder / "metrics.jsonl").write_text('{"step": 8}\n')
    away.record(0, KNOWN)
    assert (driver / "metrics.jsonl").read_text() == '{"step": 8}\n', "before the account, which may be the worker's last word"
    (account,) = failures.accounts(driver)
    assert (account["code"], account["rank"], account["known"]) == ("GTJ0207", 0, True)
    assert away.explained()


def test_a_group_that_is_sent_home_carries_nothing(sides: tuple[Path, Path, Actor, remote.Away]) -> None:
    driver, folder, actor, away = sides
    assert away.verdict(0) is None
    failures.record(driver, 1, KNOWN)
    second = remote.Away(actor, 1.5, folder)
    error = second.verdict(0)
    assert error is not None
    assert error.code == "GTJ0207"
    asked = list(actor.asked)
    second.record(1, RuntimeError("x"))
    assert actor.asked[len(asked) :] == ["enter"]


def test_the_traceback_of_an_unforeseen_error_is_in_the_jobs_log(sides: tuple[Path, Path, Actor, remote.Away]) -> None:
    driver, _, _, away = sides
    assert not away.explained()
    away.record(3, ValueError("no"))
    (path,) = (driver / "failures").glob("*.json")
    account = json.loads(path.read_text())
    assert (account["rank"], account["known"]) == (3, False)
    assert "the job's log" in account["how"]
    assert not away.explained()


def test_threads_are_those_of_this_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeID": "a", "Resources": {"CPU": 3.0}}, {"NodeID": "b", "Resources": {"CPU": 6.0}}, {"NodeID": "c", "Resources": {}}]
    monkeypatch.setattr(remote.ray, "nodes", lambda: nodes)
    for node, cores in (("b", 6), ("c", 1), ("gone", 1)):
        monkeypatch.setattr(remote.ray, "get_runtime_context", lambda node=node: SimpleNamespace(get_node_id=lambda: node))
        assert remote.threads() == cores
