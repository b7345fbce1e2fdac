"""A save, with one fault at each of its operations in turn: nothing torn, nothing lost, and the next attempt goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from faulty_store import FAULTS, Client, Crash, Fault, MemoryStore
from second_reader import check, contents

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, Commit, Fenced, files_below

WORLD = 2
LETHAL = ("crash before", "crash after")


def opened(store: MemoryStore, faults: Mapping[int, Fault] | None = None, last: int = 2) -> tuple[Checkpoints, Client]:
    client = Client(store, faults)
    return Checkpoints(client, keep=Keep(last=last), now=lambda: 1000.0, pause=lambda seconds: None), client


def save(checkpoints: Checkpoints, attempt: int, step: int, folder: Path, text: str = "") -> Commit:
    prefix = checkpoints.prefix(step, attempt)
    digests = []
    for rank in range(WORLD):
        (folder / "state").mkdir(parents=True, exist_ok=True)
        (folder / "model.pt").write_bytes(f"model {step} {rank} {text}".encode())
        (folder / "state" / "rng.json").write_bytes(f"rng {step} {rank}".encode())
        digests.append(checkpoints.put_shard(prefix, rank, files_below(folder)))
    return checkpoints.commit(
        prefix, attempt=attempt, step=step, samples=64 * step, digests=digests, metadata={"stage": 2}, metrics={"loss": 1.0 / step}
    )


def session(checkpoints: Checkpoints, folder: Path) -> list[int]:
    """Begin, save step 20 and retain, which drops step 5. Returns the steps whose commit was reported."""
    saved = save(checkpoints, checkpoints.begin(), 20, folder).step
    with suppress(JobError):  # the commit has been reported
        checkpoints.retain()
    return [saved]


def first_attempt(folder: Path) -> MemoryStore:
    store = MemoryStore(lambda objects: check(objects, keep_last=2) and None)
    checkpoints, _ = opened(store)
    attempt = checkpoints.begin()
    for step in (5, 10):
        save(checkpoints, attempt, step, folder)
    return store


def operations(folder: Path) -> int:
    checkpoints, client = opened(first_attempt(folder))
    client.count = 0
    assert session(checkpoints, folder) == [20]
    return client.count


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "other"])
def test_one_fault_at_every_operation(fault: Fault, tmp_path: Path) -> None:
    total = operations(tmp_path / "count")
    assert total > 25
    survived, codes = 0, set()
    for at in range(total):
        folder = tmp_path / str(at)
        store = first_attempt(folder)
        checkpoints, _ = opened(store, {at: fault})
        reported: list[int] = []
        try:
            reported = session(checkpoints, folder)
            survived += 1
        except Crash:
            assert fault in LETHAL
        except JobError as error:
            assert fault not in LETHAL
            codes.add(error.code)
        view = check(store.objects, keep_last=2)
        assert view.steps[-1] >= (reported or [10])[-1], f"fault at operation {at} lost a commit"
        again, _ = opened(store)
        assert again.begin() > view.attempt
        newest = again.newest()
        assert newest is not None
        assert newest.step == view.steps[-1]
        again.fetch(newest, range(WORLD), folder / "back")
        assert (folder / "back" / "rank-1" / "model.pt").read_bytes() == f"model {newest.step} 1 ".encode()
        attempt = again.begin()
        save(again, attempt, newest.step + 5, folder)
        again.retain()
        view = check(store.objects, keep_last=2)
        left = {"/".join(key.split("/")[:2]) for key in store.objects if key.startswith("steps/")}
        assert left == set(view.prefixes), f"fault at operation {at} left garbage"
    assert survived < total or fault == "answer lost"
    assert codes <= {"GTJ0211"}


@pytest.mark.parametrize("fault", ["answer lost", "late", "request lost"])
@pytest.mark.parametrize("verb", ["create log/", "create steps/"])
def test_a_create_without_an_answer_is_no_failure(fault: Fault, verb: str, tmp_path: Path) -> None:
    clean, client = opened(first_attempt(tmp_path))
    save(clean, clean.begin(), 20, tmp_path)
    creates = [at for at, line in enumerate(client.journal) if line.startswith(verb)]
    assert len(creates) == (2 if verb == "create log/" else WORLD + 1)
    for at in creates:
        store = first_attempt(tmp_path)
        checkpoints, _ = opened(store, {at: fault})
        assert save(checkpoints, checkpoints.begin(), 20, tmp_path).step == 20
        assert check(store.objects, keep_last=2).steps == [5, 10, 20], "committed twice or not at all"


def test_a_zombie_cannot_commit_at_any_point_of_its_save(tmp_path: Path) -> None:
    """A newer attempt begins before operation `at` of the older one's save."""
    fenced = 0
    for at in range(200):
        store = first_attempt(tmp_path / str(at))
        newer, _ = opened(store)
        client = Client(store, {}, other=lambda newer=newer: newer.begin() and None)
        zombie = Checkpoints(client, keep=Keep(last=2), now=lambda: 0.0, pause=lambda seconds: None)
        attempt = zombie.begin()
        client.faults = {client.count + at: "other"}
        start = client.count
        try:
            save(zombie, attempt, 20, tmp_path / str(at))
        except Fenced:
            fenced += 1
            assert check(store.objects).steps == [5, 10]
            with pytest.raises(Fenced):
                zombie.retain()
        else:
            assert check(store.objects).steps == [5, 10, 20]
            assert client.count - start <= at, "a newer attempt began and the zombie committed"
            break
    assert fenced > 10


@pytest.mark.parametrize("step", [15, 20, 25])
@pytest.mark.parametrize("look", [True, False])
def test_a_zombie_is_fenced_whatever_the_newer_attempt_has_written(step: int, look: bool, tmp_path: Path) -> None:
    """Its own step is below, at or above the newer's. One that has looked meets the newer's commit before its fence."""
    store = first_attempt(tmp_path)
    (zombie, _), (newer, _) = opened(store), opened(store)
    attempt = zombie.begin()
    save(newer, newer.begin(), 20, tmp_path)
    newer.retain()
    if look:
        assert zombie.newest() is not None
    with pytest.raises(Fenced):
        save(zombie, attempt, step, tmp_path)


def test_two_writers_take_turns_at_every_operation(tmp_path: Path) -> None:
    """Two processes of one attempt append at the same time, as a driver and a worker may: both get in, with no gap and no loss."""
    for at in range(40):
        store = first_attempt(tmp_path / str(at))
        first, _ = opened(store)
        damaged = first.newest()
        assert damaged is not None
        client = Client(store, {at: "other"}, other=lambda first=first, damaged=damaged: first.quarantine(damaged, "test"))
        second = Checkpoints(client, keep=Keep(last=2), now=lambda: 0.0, pause=lambda seconds: None)
        save(second, second.begin(), 20, tmp_path / str(at))
        assert check(store.objects).steps in ([5, 20], [5, 10, 20])


def test_a_commit_that_is_repeated_is_the_same_commit(tmp_path: Path) -> None:
    store = MemoryStore()
    checkpoints, _ = opened(store)
    attempt = checkpoints.begin()
    prefix = checkpoints.prefix(7, attempt)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a").write_bytes(b"abc")
    digests = [checkpoints.put_shard(prefix, 0, files_below(tmp_path / "s"))]
    arguments = {"attempt": attempt, "step": 7, "samples": 70, "digests": digests, "metadata": {}, "metrics": {}}
    first = checkpoints.commit(prefix, **arguments)
    assert checkpoints.commit(prefix, **arguments) == first
    assert opened(store)[0].commit(prefix, **arguments) == first
    assert len(check(store.objects).commits) == 1


def test_steps_do_not_fall_within_an_attempt(tmp_path: Path) -> None:
    store = first_attempt(tmp_path)
    checkpoints, _ = opened(store)
    attempt = checkpoints.begin()
    save(checkpoints, attempt, 30, tmp_path)
    with pytest.raises(ValueError, match="step 20 after step 30"):
        save(checkpoints, attempt, 20, tmp_path)
    back = checkpoints.begin()
    assert save(checkpoints, back, 20, tmp_path).step == 20
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.step, newest.attempt) == (20, back)


def test_going_back_takes_an_attempt_that_another_process_may_begin(tmp_path: Path) -> None:
    """The trainer begins, a process beside it commits: that one last looked when the attempt before was the newest."""
    store = first_attempt(tmp_path / "first")
    (beside, _), (trainer, _) = opened(store), opened(store)
    attempt = trainer.begin()
    save(beside, attempt, 20, tmp_path / "a")
    again = trainer.begin()
    save(beside, again, 15, tmp_path / "b")
    assert check(store.objects, keep_last=2).steps == [5, 10, 20, 15]


def test_an_attempt_that_has_not_begun_cannot_commit(tmp_path: Path) -> None:
    checkpoints, _ = opened(MemoryStore())
    with pytest.raises(ValueError, match="attempt 1 has not begun"):
        save(checkpoints, 1, 10, tmp_path)


def test_a_shard_is_written_once(tmp_path: Path) -> None:
    checkpoints, _ = opened(first_attempt(tmp_path))
    with pytest.raises(ValueError, match="written once"):
        save(checkpoints, 1, 10, tmp_path, "other")


def test_a_shard_that_does_not_fit_gives_its_space_back(tmp_path: Path) -> None:
    client = Client(MemoryStore(), {4: "full"})  # two looks for manifests, the first two files of three
    checkpoints = Checkpoints(client, keep=Keep())
    for name in "abc":
        tmp_path.joinpath(name).write_bytes(b"abc")
    with pytest.raises(JobError, match=r"GTJ0211 a checkpoint cannot be written .*no space left. free disk space"):
        checkpoints.put_shard(checkpoints.prefix(3, 1), 0, files_below(tmp_path))
    assert len([line for line in client.journal if line.startswith("upload steps/000000000003-a1/rank-0/")]) == 3
    assert client.store.objects == {}
    assert len(list(tmp_path.iterdir())) == 3, "the shard is still there to be tried again"


def test_the_commit_looks_for_every_file(tmp_path: Path) -> None:
    store = MemoryStore()
    checkpoints, _ = opened(store)
    attempt = checkpoints.begin()
    prefix = checkpoints.prefix(3, attempt)
    tmp_path.joinpath("a").write_bytes(b"abc")
    told = checkpoints.put_shard(prefix, 0, files_below(tmp_path))
    del store.objects[f"{prefix}/rank-0/a"]
    with pytest.raises(JobError, match=r"GTJ0211 a rank's shard.*rank-0/a.*is missing"):
        checkpoints.commit(prefix, attempt=attempt, step=3, samples=0, digests=[told], metadata={}, metrics={})
    with pytest.raises(JobError, match=r"GTJ0211.*rank-1.json"):  # a rank that wrote somewhere else
        checkpoints.commit(prefix, attempt=attempt, step=3, samples=0, digests=[told, told], metadata={}, metrics={})
    assert checkpoints.newest() is None


def test_a_damaged_record_is_skipped_and_ends_the_attempt_it_hides_a_fence_from(tmp_path: Path) -> None:
    store = first_attempt(tmp_path)  # log: fence 1, commit 5, commit 10
    last = max(key for key in store.objects if key.startswith("log/"))
    for position in range(len(store.objects[last])):
        broken = bytearray(store.objects[last])
        broken[position] ^= 1
        copy = MemoryStore()
        copy.objects = {**store.objects, last: bytes(broken)}
        reader, _ = opened(copy)
        newest = reader.newest()
        assert newest is not None
        assert newest.step == 5, f"flip at {position} of the record went unnoticed"
    with pytest.raises(Fenced, match="damaged"):
        save(opened(copy)[0], 1, 20, tmp_path)
    restarted, _ = opened(copy)
    assert restarted.begin() == 3, "the damaged record may have been fence 2"
    assert save(restarted, 3, 20, tmp_path).seq == 5
    reclaimed = opened(copy)[0]
    reclaimed.retain()
    assert any(key.startswith("steps/000000000010-a1/") for key in copy.objects), "its record may be the damaged one"


def test_losses_that_ran_away_do_not_cost_the_checkpoint(tmp_path: Path) -> None:
    store = MemoryStore()
    checkpoints, _ = opened(store)
    attempt = checkpoints.begin()
    prefix = checkpoints.prefix(1, attempt)
    told = checkpoints.put_shard(prefix, 0, files_below(tmp_path))
    metrics = {"loss": float("nan"), "loss/G": float("inf"), "loss/D": 2.0}
    commit = checkpoints.commit(prefix, attempt=attempt, step=1, samples=1, digests=[told], metadata={}, metrics=metrics)
    assert commit.metrics == {"loss/D": 2.0}
    record = json.loads(store.objects["log/0000000000000002.json"])
    assert contents(store.objects, record["body"]) == {}
