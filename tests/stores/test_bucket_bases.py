"""A base in a bucket is the same base as in a folder: fetched once for the processes of a machine, and refused by the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores.servers import Service
from trainjobs.api.errors import JobError
from trainjobs.api.pretrained import Base
from trainjobs.data.places.bucket import BucketPlace
from trainjobs.data.places.place import ALONE
from trainjobs.data.pretrained import fetched, look, opened

pytestmark = pytest.mark.slow

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(range(256)) * 99,
    "tokenizer.json": b"{}",
    "README.md": b"-",
}


def test_a_base_is_read_once_from_a_bucket_and_refused_as_elsewhere(
    server: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, folder = server.fresh(), tmp_path / "model"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
        server.write(uri, name, data)
    base = Base(source=uri)
    look(base)
    found = opened(base, tmp_path / "cache", ALONE)
    beside = opened(Base(source=f"file://{folder}"), tmp_path / "other", ALONE)
    assert found is not None
    assert beside is not None
    assert found.digest == beside.digest
    assert set(found.files) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (found.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert opened(base, tmp_path / "cache", ALONE, beside.account) == found, "a run goes on from the same model elsewhere"
    with monkeypatch.context() as patch:
        patch.setattr(BucketPlace, "fetch", lambda place, one, to: pytest.fail(f"{one.name} is there already"))
        assert fetched(base, uri, tmp_path / "cache") == found
    server.write(uri, "model.safetensors", FILES["model.safetensors"][::-1])
    with pytest.raises(JobError, match=r"GTJ0208 .*model\.safetensors differs"):
        opened(base, tmp_path / "cache", ALONE, found.account)
    server.delete(uri, "model.safetensors")
    server.write(uri, "pytorch_model.bin", b"pickle")
    with pytest.raises(JobError, match=r"GTJ0109 the base has no safetensors .*pytorch_model\.bin"):
        opened(base, tmp_path / "cache", ALONE)
    for nowhere in (f"{uri}-other", uri.rpartition("/")[0] + "-none/model"):
        with pytest.raises(JobError) as error:
            look(Base(source=nowhere))
        assert error.value.code == "GTJ0118", error.value
        assert error.value.where == nowhere
