"""The facade on a real folder: save, resume, damage, addresses, and a disk that says no."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from second_reader import check, load

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.api.uris import file_uri
from trainjobs.checkpoints import Checkpoints, Commit, Corrupt, Fenced, files_below, locate, open_store

NAMES = ("model.pt", "optimizer.pt", "state/rng.json")


class Run:
    """A run's folder, and a clock that moves one second per look."""

    def __init__(self, folder: Path, last: int = 3, grace: float = 0.0) -> None:
        self.stage, self.root, self.time, self.grace, self.last = folder / "stage", folder / "checkpoints", 1000.0, grace, last
        self.checkpoints = self.open()
        self.attempt = self.checkpoints.begin()

    def open(self) -> Checkpoints:
        return Checkpoints(open_store(file_uri(str(self.root))), keep=Keep(last=self.last), now=self.now, grace=self.grace)

    def now(self) -> float:
        self.time += 1
        return self.time

    def save(self, step: int, world: int = 2) -> Commit:
        prefix, digests = self.checkpoints.prefix(step, self.attempt), []
        for rank in range(world):
            for name in NAMES:
                (self.stage / name).parent.mkdir(parents=True, exist_ok=True)
                (self.stage / name).write_bytes(f"{name} {step} {rank}".encode() * 10)
            digests.append(self.checkpoints.put_shard(prefix, rank, files_below(self.stage)))
        return self.checkpoints.commit(
            prefix,
            attempt=self.attempt,
            step=step,
            samples=64 * step,
            digests=digests,
            metadata={"stage": 2, "spec": "sha256:1"},
            metrics={"loss": 0.5},
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_what_is_saved_comes_back(run: Run, tmp_path: Path) -> None:
    saved = run.save(12000)
    assert saved == Commit(
        seq=2,
        attempt=1,
        step=12000,
        samples=768000,
        prefix="steps/000000012000-a1",
        manifest_digest=saved.manifest_digest,
        committed_at=saved.committed_at,
        metadata={"stage": 2, "spec": "sha256:1"},
        metrics={"loss": 0.5},
        size_bytes=sum(len(f"{name} 12000 {rank}") * 10 for name in NAMES for rank in range(2)),
        world=2,
    )
    reader = run.open()
    assert reader.newest() == saved
    reader.verify(saved)
    for ranks in ([1], [0, 1]):  # the second time in place of the first
        reader.fetch(saved, ranks, tmp_path / "back")
        assert sorted(os.listdir(tmp_path / "back")) == [f"rank-{rank}" for rank in ranks]
        for rank in ranks:
            for name in NAMES:
                assert (tmp_path / "back" / f"rank-{rank}" / name).read_bytes() == f"{name} 12000 {rank}".encode() * 10
    assert check(load(run.root)).steps == [12000]


def test_a_save_leaves_the_files_alone_and_keeps_nothing_of_theirs(run: Run) -> None:
    """The trainer writes its next checkpoint into the same memory."""
    saved = run.save(1)
    for path in run.stage.rglob("*"):
        if path.is_file():
            path.write_bytes(b"the next one")
    run.open().verify(saved)


def test_a_new_run_has_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_store(f"file://{tmp_path}/none"), keep=Keep())
    assert checkpoints.newest() is None
    assert checkpoints.commits() == []
    assert checkpoints.retain() == []
    assert not (tmp_path / "none").exists(), "looking writes nothing"


def test_links_are_not_uploaded(run: Run, tmp_path: Path) -> None:
    run.stage.mkdir()
    (run.stage / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="not a plain file"):
        run.checkpoints.put_shard(run.checkpoints.prefix(1, 1), 0, files_below(run.stage))


@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "delete"])
def test_every_file_of_a_checkpoint_damaged_in_turn(damage: str, run: Run, tmp_path: Path) -> None:
    before, saved = run.save(5), run.save(10)
    files = [path for path in (run.root / saved.prefix).rglob("*") if path.is_file()]
    assert len(files) == 2 * (len(NAMES) + 1) + 1
    for path in files:
        whole, key = path.read_bytes(), path.relative_to(run.root).as_posix()
        places = {"flip": range(0, len(whole), 1 + len(whole) // 12), "truncate": [0, len(whole) - 1]}.get(damage, [0])
        for place in places:
            if damage == "flip":
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            elif damage == "truncate":
                path.write_bytes(whole[:place])
            elif damage == "extend":
                path.write_bytes(whole + b"\0")
            else:
                path.unlink()
            for act in (run.open().verify, lambda commit: run.open().fetch(commit, [0, 1], tmp_path / "back")):
                with pytest.raises(Corrupt) as caught:
                    act(saved)
                assert caught.value.file == key
            path.write_bytes(whole)
    run.open().verify(saved)
    files[0].unlink()
    run.checkpoints.quarantine(saved, "is missing")
    assert run.open().newest() == before
    assert [(status.state, status.why) for status in run.checkpoints.commits()] == [("live", ""), ("corrupt", "is missing")]
    with pytest.raises(JobError, match=r"GTJ0118 checkpoint not found \(10\): it is corrupt. there are steps 5"):
        run.checkpoints.resolve(10)
    run.checkpoints.quarantine(saved, "again")
    assert len([key for key in load(run.root) if key.startswith("log/")]) == 4, "once is enough"


def test_a_rank_is_fetched_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    saved = run.save(10)
    (run.root / saved.prefix / "rank-1" / NAMES[2]).write_bytes(b"")
    with pytest.raises(Corrupt, match=r"GTJ0209 .*rank-1/state/rng.json.*has 0 bytes"):
        run.checkpoints.fetch(saved, [0, 1], tmp_path / "back")
    assert os.listdir(tmp_path / "back") == ["rank-0"]


def test_a_manifest_cannot_name_a_file_outside(run: Run) -> None:
    from trainjobs.checkpoints.manifest import File, RankManifest, rank_manifest
    from trainjobs.stores.store import digest

    data = RankManifest(0, (File("../../../.bashrc", 1, "sha256:0"),)).encode()
    with pytest.raises(Corrupt, match="not a key"):
        rank_manifest("rank-0.json", data, digest(data))


def test_retention_keeps_the_last_and_deletes_the_rest(run: Run) -> None:
    for step in range(1, 6):
        run.save(step)
    assert [commit.step for commit in run.checkpoints.retain()] == [1, 2]
    assert sorted(os.listdir(run.root / "steps")) == [run.checkpoints.prefix(step, 1)[6:] for step in (3, 4, 5)]
    assert [status.state for status in run.open().commits()] == ["deleted", "deleted", "live", "live", "live"]
    assert run.checkpoints.retain() == []
    assert check(load(run.root), keep_last=3).steps == [3, 4, 5]


def test_retention_waits_for_the_grace(tmp_path: Path) -> None:
    run = Run(tmp_path, last=1, grace=100.0)
    first = run.save(1)
    run.save(2)
    assert run.checkpoints.retain() == []
    assert run.checkpoints.newest() != first
    run.checkpoints.verify(first)
    run.time += 100
    assert run.checkpoints.retain() == [first]
    with pytest.raises(Corrupt, match="is missing"):
        run.checkpoints.verify(first)
    run.checkpoints.quarantine(first, "is missing")
    assert run.checkpoints.commits()[0].state == "deleted", "a reader whom retention overtook spoils nothing"


def test_retention_beside_an_upload(run: Run) -> None:
    """What is on its way to its commit stays, while what a dead attempt left goes."""
    run.save(10)
    for name in ("dead", "alive"):
        (run.stage / name).parent.mkdir(exist_ok=True)
    (run.stage / "dead").write_bytes(b"x")
    run.checkpoints.put_shard(run.checkpoints.prefix(20, 1), 0, files_below(run.stage))
    run.attempt = run.checkpoints.begin()
    prefix = run.checkpoints.prefix(20, run.attempt)
    (run.stage / "alive").write_bytes(b"x")
    told = run.checkpoints.put_shard(prefix, 0, files_below(run.stage))
    run.checkpoints.retain()
    assert sorted(os.listdir(run.root / "steps")) == ["000000000010-a1", "000000000020-a2"]
    run.checkpoints.commit(prefix, attempt=2, step=20, samples=0, digests=[told], metadata={}, metrics={})
    assert check(load(run.root), keep_last=3).steps == [10, 20]


def test_the_old_attempt_is_told_that_it_is_fenced(run: Run) -> None:
    run.save(10)
    assert run.open().begin() == 2
    with pytest.raises(Fenced):
        run.checkpoints.retain()  # although there is nothing to drop
    with pytest.raises(Fenced, match="GTJ0117 attempt 1 of this run has been replaced: attempt 2 has begun"):
        run.save(20)
    assert check(load(run.root)).steps == [10]


def test_addresses(run: Run, tmp_path: Path) -> None:
    first, second = run.save(10), run.save(20)
    uri = run.checkpoints.uri(first)
    assert uri == f"file://{run.root}/steps/000000000010-a1"
    assert run.checkpoints.resolve(uri) == run.checkpoints.resolve("10") == run.checkpoints.resolve(10) == first
    assert run.checkpoints.resolve(f"file://{run.root}/") == second
    for address, expected in ((uri, first), (f"{uri}/", first), (f"file://{run.root}", second)):
        found, commit = locate(address)
        assert commit == expected
        found.verify(commit)
    with pytest.raises(JobError, match=r"GTJ0118 checkpoint not found \(30\): there is no such commit. there are steps 10, 20"):
        run.checkpoints.resolve(30)
    with pytest.raises(JobError, match=r"GTJ0118 .*there are none"):
        locate(f"file://{tmp_path}/elsewhere")


def test_an_old_attempt_whose_files_were_swept_is_told_that_it_is_fenced(run: Run) -> None:
    """It was stopped between its upload and its commit, and woke up after the newer attempt had cleaned up."""
    prefix = run.checkpoints.prefix(10, 1)
    run.stage.mkdir()
    (run.stage / "a").write_bytes(b"x")
    told = run.checkpoints.put_shard(prefix, 0, files_below(run.stage))
    newer = run.open()
    newer.begin()
    newer.retain()
    assert not (run.root / prefix).exists()
    with pytest.raises(Fenced):
        run.checkpoints.commit(prefix, attempt=1, step=10, samples=0, digests=[told], metadata={}, metrics={})


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket", "not a folder in a bucket.*write s3://bucket/folder"),
        ("gs://bucket//run", "not a folder in a bucket"),
        ("az://account/container", "not a folder in a bucket.*write az://account/container/folder"),
        ("s3://key:secret@bucket/run", r"a URI carries no credentials \(s3://\.\.\.\)"),
        ("az://account/container/run?sig=secret", "a URI carries no credentials"),
        ("ftp://host/run", "not the URI of a checkpoint store"),
        ("file://relative/path", "a file URI needs an absolute path.*write file:///relative/path"),
        ("/plain/path", "not the URI of a checkpoint store"),
    ],
)
def test_uris_that_are_not_usable(uri: str, message: str) -> None:
    with pytest.raises(JobError, match=f"GTJ0107 {message}"):
        open_store(uri)


def test_a_store_in_a_folder_of_any_name_is_found_by_its_uri(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"my runs #1 100%20? \xe9")
    run = Run(root)
    commit = run.save(10)
    uri = run.checkpoints.uri(commit)
    assert uri.startswith(f"file://{tmp_path}/my%20runs%20%231%20100%2520?%20%E9/checkpoints/".replace("?", "%3F"))
    assert locate(uri)[1] == commit
    assert locate(uri.replace("my%20runs", "my runs").replace("%3F", "%3f"))[1] == commit, "however it is escaped"


def test_the_probe_leaves_nothing(run: Run, tmp_path: Path) -> None:
    run.checkpoints.probe()
    assert os.listdir(run.root) == ["log"]
    tmp_path.joinpath("file").write_bytes(b"")
    with pytest.raises(JobError, match=r"GTJ0114 checkpoints cannot be written .*: Not a directory"):
        Checkpoints(open_store(f"file://{tmp_path}/file"), keep=Keep()).probe()


def test_the_probe_refuses_a_store_that_ignores_conditions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"file://{run.root}")
    monkeypatch.setattr(type(store), "put_if_absent", lambda store, key, data: True)
    monkeypatch.setattr(type(store), "get", lambda store, key: b"2")
    with pytest.raises(JobError, match="GTJ0112 the store ignores conditional writes"):
        Checkpoints(store, keep=Keep()).probe()


def test_the_errors_cross_processes() -> None:
    for error in (Corrupt("steps/x/a", "is missing"), Fenced(3, "attempt 4 has begun")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert copy.line() == error.line()


def test_a_facade_moves_to_another_process(run: Run) -> None:
    store = open_store(f"file://{run.root}")
    moved = pickle.loads(pickle.dumps(Checkpoints(store, keep=Keep())))
    assert moved.newest() == run.checkpoints.newest()
