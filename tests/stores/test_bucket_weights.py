"""Exports from a bucket, and initial weights in one: nothing but the bucket is asked, and nothing is written there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.export.ranks import saved
from tests.stores.servers import Service
from trainjobs.api.errors import JobError
from trainjobs.checkpointer.initial import fetch
from trainjobs.checkpoints import locate, open_store
from trainjobs.export.export import export

pytestmark = pytest.mark.slow


def test_an_export_needs_nothing_but_the_bucket(server: Service, tmp_path: Path) -> None:
    uri = server.fresh()
    large = torch.randn(5_000_000)  # a file of more than one part
    checkpoints, commit = saved(tmp_path, {"net": {"fp32/large": large, "fp32/small": torch.ones(2, 3)}}, world=2, uri=uri)
    before = server.load(uri)
    done = export(*locate(checkpoints.uri(commit)), tmp_path / "out", weights=None, dtype="fp32")
    assert done.networks == ("net",)
    found = load_file(tmp_path / "out" / "net.safetensors")
    assert torch.equal(found["large"], large)
    assert torch.equal(found["small"], torch.ones(2, 3))
    assert server.load(uri) == before
    victim = f"{commit.prefix}/rank-1/net.safetensors"
    whole = before[victim]
    server.write(uri, victim, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(JobError, match=rf"GTJ0209.*{victim}"):
        export(*locate(uri), tmp_path / "more", weights=None, dtype="fp32")
    assert not (tmp_path / "more").exists()
    assert not (tmp_path / "more.partial").exists()


def test_initial_weights_are_fetched(server: Service, tmp_path: Path) -> None:
    uri = server.fresh()
    save_file({"w": torch.arange(5)}, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    server.write(uri, "model.safetensors", data)
    (found,) = fetch(uri, ["net", "model"], tmp_path / "scratch")
    assert found.read_bytes() == data
    with pytest.raises(JobError, match=r"GTJ0118.*other.safetensors is missing"):
        fetch(uri, ["other"], tmp_path / "scratch")
    assert open_store(uri).get("model.safetensors") == data
