"""A commit that was reported survives a power cut: when its record gets its name, all that it refers to has been synced, names included.

The kernel may forget, at a power cut, every file's contents and every folder's names that nobody synced since they changed. The test writes
down what a save asks of the kernel and looks whether something could be forgotten.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, files_below, open_store

Event = tuple[str, str, int]  # what, path, inode


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """("sync", path, inode) and ("name", path, inode) for a name that appears, in order."""
    found: list[Event] = []
    fsync, link, replace, mkdir = os.fsync, os.link, os.replace, os.mkdir

    def traced_fsync(descriptor: int) -> None:
        fsync(descriptor)
        found.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_ino))

    def traced_link(source: Path, target: Path, **named: bool) -> None:
        link(source, target, **named)
        found.append(("name", str(target), os.stat(target).st_ino))

    def traced_replace(source: Path, target: Path) -> None:
        replace(source, target)
        found.append(("name", str(target), os.stat(target).st_ino))

    def traced_mkdir(path: Path, mode: int = 0o777) -> None:
        mkdir(path, mode)
        found.append(("name", str(path), os.stat(path).st_ino))

    for name, traced in {"fsync": traced_fsync, "link": traced_link, "replace": traced_replace, "mkdir": traced_mkdir}.items():
        monkeypatch.setattr(os, name, traced)
    return found


def save(checkpoints: Checkpoints, attempt: int, step: int, stage: Path) -> str:
    prefix = checkpoints.prefix(step, attempt)
    digests = []
    for rank in range(2):
        for name in ("model.pt", "optimizer.pt", "state/rng.json"):
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(os.urandom(100))
        digests.append(checkpoints.put_shard(prefix, rank, files_below(stage)))
    checkpoints.commit(prefix, attempt=attempt, step=step, samples=0, digests=digests, metadata={}, metrics={})
    return prefix


def test_all_is_synced_before_the_commit_and_the_commit_before_it_is_told(tmp_path: Path, events: list[Event]) -> None:
    root = tmp_path / "new" / "root"
    checkpoints = Checkpoints(open_store(f"file://{root}"), keep=Keep())
    attempt = checkpoints.begin()
    prefix = save(checkpoints, attempt, 10, tmp_path / "stage")
    record = str(root / "log" / "0000000000000002.json")
    (committed,) = [at for at, event in enumerate(events) if event[:2] == ("name", record)]
    before, after = events[:committed], events[committed:]

    files = [path for path in (root / prefix).rglob("*") if path.is_file()]
    assert len(files) == 2 * 3 + 2 + 1
    for path in [*files, root / "log" / "0000000000000001.json"]:
        assert path.stat().st_ino in {inode for what, _, inode in before if what == "sync"}, f"{path}: contents"
        for name in [path, *path.parents]:
            if tmp_path not in name.parents:
                break
            appeared = max((at for at, event in enumerate(before) if event[:2] == ("name", str(name))), default=None)
            if appeared is not None:
                assert ("sync", str(name.parent)) in [event[:2] for event in before[appeared:]], f"{name}: its name"
    assert os.stat(record).st_ino in {inode for what, _, inode in before if what == "sync"}, "the record's contents"
    assert ("sync", str(root / "log")) in [event[:2] for event in after], "the record's name"


def test_a_folder_made_by_somebody_else_is_synced_all_the_same(tmp_path: Path, events: list[Event]) -> None:
    """Its maker may have died before it synced the folder's name."""
    for folder in ("root/log", "root/steps"):
        (tmp_path / folder).mkdir(parents=True)
    events.clear()
    Checkpoints(open_store(f"file://{tmp_path}/root"), keep=Keep()).begin()
    assert {("sync", str(tmp_path)), ("sync", str(tmp_path / "root"))} <= {event[:2] for event in events}


def test_a_save_of_a_small_model_costs_few_syncs(tmp_path: Path, events: list[Event]) -> None:
    """On a disk a sync is what a small checkpoint costs: one per file, and one per folder that got new names."""
    checkpoints = Checkpoints(open_store(f"file://{tmp_path}/root"), keep=Keep())
    attempt = checkpoints.begin()
    save(checkpoints, attempt, 10, tmp_path / "stage")
    events.clear()
    save(checkpoints, attempt, 20, tmp_path / "stage")
    synced = [path for what, path, _ in events if what == "sync"]
    contents, folders = 2 * 4 + 2, 5 + 2 * 4 + 2  # rank 0 and 1: 3 files and a manifest; MANIFEST and record
    assert len(synced) <= contents + folders
