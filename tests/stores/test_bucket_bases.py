"""A base in a bucket is the same base as in a folder: fetched once for the processes of a machine, and refused by the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores.servers import Service
from trainjobs.api.errors import JobError
from trainjobs.api.pretrained import Base
from trainjobs.checkpointer.taught_prepared import Taught, fetch, found, named, store
from trainjobs.checkpoints import open_store
from trainjobs.data.job_template import text_of
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
    made = opened(base, tmp_path / "cache", ALONE)
    beside = opened(Base(source=f"file://{folder}"), tmp_path / "other", ALONE)
    assert made is not None
    assert beside is not None
    assert made.digest == beside.digest
    assert set(made.files) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (made.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert opened(base, tmp_path / "cache", ALONE, beside.account) == made, "a run goes on from the same model elsewhere"
    with monkeypatch.context() as patch:
        patch.setattr(BucketPlace, "fetch", lambda place, one, to: pytest.fail(f"{one.name} is there already"))
        assert fetched(base, uri, tmp_path / "cache") == made
    server.write(uri, "model.safetensors", FILES["model.safetensors"][::-1])
    with pytest.raises(JobError, match=r"GTJ0208 .*model\.safetensors differs"):
        opened(base, tmp_path / "cache", ALONE, made.account)
    server.delete(uri, "model.safetensors")
    server.write(uri, "pytorch_model.bin", b"pickle")
    with pytest.raises(JobError, match=r"GTJ0109 the base has no safetensors .*pytorch_model\.bin"):
        opened(base, tmp_path / "cache", ALONE)
    for nowhere in (f"{uri}-other", uri.rpartition("/")[0] + "-none/model"):
        with pytest.raises(JobError) as error:
            look(Base(source=nowhere))
        assert error.value.code == "GTJ0118", error.value
        assert error.value.where == nowhere


def test_a_chat_template_is_read_from_a_bucket(server: Service) -> None:
    uri = server.fresh()
    server.write(uri, "chat.jinja", "{{ 'ü' }}".encode())
    assert text_of(f"{uri}/chat.jinja") == "{{ 'ü' }}"
    server.write(uri, "chat/one.jinja", b"one")
    server.write(uri, "chat/two.jinja", b"two")
    for name, why in (("none.jinja", "does not exist"), ("chat", "it is a folder")):
        with pytest.raises(JobError, match=rf"GTJ0118 there is no such chat template .language.template: {uri}/{name}.*{why}"):
            text_of(f"{uri}/{name}")


def test_what_a_teacher_says_goes_through_a_bucket(server: Service, tmp_path: Path) -> None:
    """Stored as it is made, begun again where it stopped, and fetched by its digest."""
    uri, asked = server.fresh(), Taught({"k": 3}, "data", ["cpu"], 2)
    due = named([tmp_path / "a.bin"], [tmp_path / "b.bin"])

    def make(number: int) -> None:
        if number:
            raise KeyboardInterrupt
        due[number][0].write_bytes(b"said" * 9)

    with pytest.raises(KeyboardInterrupt):
        store(open_store(uri), asked, due, make, lambda done: None)
    with pytest.raises(JobError, match="GTJ0113 the teacher was not asked to the end"):
        found(uri, asked)
    assert store(open_store(uri), asked, due, lambda number: due[number][0].write_bytes(b"held") and None, lambda done: None) == 1
    there = found(uri, asked)
    fetch(uri, there, tmp_path / "c.bin", "train-00000.bin")
    assert (tmp_path / "c.bin").read_bytes() == b"said" * 9
    server.write(uri, "held-00000.bin", b"HELD")
    with pytest.raises(JobError, match=rf"GTJ0113 what the teacher said is damaged .{uri}/held-00000.bin"):
        fetch(uri, there, tmp_path / "d.bin", "held-00000.bin")
