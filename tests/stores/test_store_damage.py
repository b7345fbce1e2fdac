"""A flipped byte in every file of a checkpoint, one at a time: it is found, named, and the checkpoint before is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores.servers import Service
from trainjobs.api.checkpoints import Keep
from trainjobs.checkpoints import Checkpoints, Commit, Corrupt, files_below, locate, open_store

pytestmark = pytest.mark.slow


def save(checkpoints: Checkpoints, attempt: int, step: int, folder: Path) -> Commit:
    prefix, digests = checkpoints.prefix(step, attempt), []
    for rank in range(2):
        for name in ("g/model.pt", "g/optimizer.pt", "ema.pt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(f"{name} {step} {rank} ".encode() * 50)
        digests.append(checkpoints.put_shard(prefix, rank, files_below(folder)))
    return checkpoints.commit(prefix, attempt=attempt, step=step, samples=step, digests=digests, metadata={}, metrics={})


def test_every_file_damaged_in_turn(server: Service, tmp_path: Path) -> None:
    uri = server.fresh()
    store = open_store(uri)
    checkpoints = Checkpoints(store, keep=Keep())
    attempt = checkpoints.begin()
    before, saved = (save(checkpoints, attempt, step, tmp_path / "stage") for step in (5, 10))
    whole = server.load(uri)
    files = [key for key in whole if key.startswith(f"{saved.prefix}/")]
    assert len(files) == 2 * 4 + 1
    for key in files:
        for damage in (bytes([whole[key][0] ^ 1]) + whole[key][1:], whole[key][:-1], None):
            server.delete(uri, key) if damage is None else server.write(uri, key, damage)
            for act in ("verify", "fetch"):
                reader = Checkpoints(store, keep=Keep())
                with pytest.raises(Corrupt) as caught:
                    reader.verify(saved) if act == "verify" else reader.fetch(saved, [0, 1], tmp_path / "back")
                assert caught.value.file == key
        server.write(uri, key, whole[key])
    server.write(uri, files[0], b"spoilt")
    reader = Checkpoints(store, keep=Keep())
    reader.quarantine(saved, "spoilt")
    assert reader.newest() == before
    reader.verify(before)
    assert locate(uri)[1] == before
