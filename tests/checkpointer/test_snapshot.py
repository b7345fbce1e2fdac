"""What a rank copies: the safetensors library reads it, memory is used again, and what settles later is what it was at the call."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from trainjobs.checkpointer import snapshot
from trainjobs.checkpointer.snapshot import Snapshot
from trainjobs.checkpoints.tensors import decode_index
from trainjobs.engine import memory
from trainjobs.engine.parts import Part, part

CPU = torch.device("cpu")


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Snapshot]:
    made = Snapshot(tmp_path, CPU, 1)
    yield made
    made.close()


def contents(descriptor: int) -> dict[str, torch.Tensor]:
    return load(Path(f"/dev/fd/{descriptor}").read_bytes())


def take(taken: Snapshot, files: Mapping[str, list[Part]]) -> tuple[Mapping[str, int], bytes]:
    found: list[Any] = []
    taken.take(files, lambda descriptors, index: found.append((descriptors, index)))
    taken.wait()
    return found[0]  # type: ignore[no-any-return]


def test_the_safetensors_library_reads_every_type(taken: Snapshot) -> None:
    tensors = {
        "fp32/a": torch.randn(3, 5),
        "ema/b": torch.randn(7).bfloat16(),
        "buffer/count": torch.tensor(5),
        "buffer/flags": torch.tensor([True, False, True]),
        "exp_avg/empty": torch.zeros(0),
        "buffer/u": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "exp_avg/strided": torch.randn(4, 6).t(),
    }
    descriptors, index = take(taken, {"net": [part(key, value) for key, value in tensors.items()]})
    found = contents(descriptors["net.safetensors"])
    assert found.keys() == tensors.keys()
    for key, value in tensors.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key
    assert {slice.key for slice in decode_index(index)["net.safetensors"]} == tensors.keys()


def test_a_slice_is_stored_flat_and_says_where_it_belongs(taken: Snapshot) -> None:
    whole = torch.randn(4, 6)
    descriptors, index = take(taken, {"net": [part("fp32/w", whole.view(-1)[5:17], (4, 6), 5)]})
    assert torch.equal(contents(descriptors["net.safetensors"])["fp32/w"], whole.view(-1)[5:17])
    (slice,) = decode_index(index)["net.safetensors"]
    assert (slice.shape, slice.start, slice.length) == ((4, 6), 5, 12)


def test_memory_is_used_again_until_the_layout_changes(taken: Snapshot) -> None:
    value = torch.ones(10)
    first, _ = take(taken, {"net": [part("fp32/w", value)]})
    inode = os.fstat(first["net.safetensors"]).st_ino
    value.fill_(2)
    second, _ = take(taken, {"net": [part("fp32/w", value)]})
    assert second == first
    assert torch.equal(contents(second["net.safetensors"])["fp32/w"], value)
    third, _ = take(taken, {"net": [part("fp32/w", value), part("exp_avg/w", value)]})
    assert os.fstat(third["net.safetensors"]).st_ino != inode


def test_equal_contents_are_equal_bytes_in_any_order(taken: Snapshot, tmp_path: Path) -> None:
    parts = [part("fp32/a", torch.ones(3)), part("fp32/b", torch.ones(2)), part("step/a", torch.tensor(1.0))]
    first, _ = take(taken, {"net": parts})
    other = Snapshot(tmp_path, CPU, 1)
    second, _ = take(other, {"net": parts[::-1]})
    read = [Path(f"/dev/fd/{found['net.safetensors']}").read_bytes() for found in (first, second)]
    assert read[0] == read[1]
    other.close()


def test_buffers_are_copied_at_once_and_the_rest_until_it_settles(taken: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, buffer, go = torch.zeros(4), torch.zeros(4), threading.Event()
    original = snapshot._copy

    def slow(moves: list[Any]) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert go.wait(60)
        original(moves)

    monkeypatch.setattr(snapshot, "_copy", slow)
    found: list[Any] = []
    taken.take({"net": [part("fp32/w", weight), part("buffer/b", buffer, restless=True)]}, lambda files, index: found.append(files))
    buffer.fill_(1)  # a forward pass
    assert not found
    go.set()
    taken.settle()
    weight.fill_(1)  # the optimizer's step
    taken.wait()
    stored = contents(found[0]["net.safetensors"])
    assert torch.equal(stored["fp32/w"], torch.zeros(4))
    assert torch.equal(stored["buffer/b"], torch.zeros(4))


def test_what_the_upload_raises_is_raised_where_it_is_waited_for(taken: Snapshot) -> None:
    def refuse(files: object, index: bytes) -> None:
        raise ValueError("no")

    taken.take({"net": [part("fp32/w", torch.ones(1))]}, refuse)
    with pytest.raises(ValueError, match="no"):
        taken.wait()


def test_where_memory_is_short_the_copy_lies_on_the_disk_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 0)
    taken = Snapshot(tmp_path, CPU, 1)
    files, _ = take(taken, {"net": [part("fp32/w", torch.ones(5))]})
    assert os.fstat(files["net.safetensors"]).st_dev == tmp_path.stat().st_dev
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(contents(files["net.safetensors"])["fp32/w"], torch.ones(5))
    taken.close()


def test_available_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable:     500 kB\n")
    assert memory.available(tmp_path, tmp_path) == 500 * 1024
    (tmp_path / "memory.max").write_text("300000\n")
    (tmp_path / "memory.current").write_text("100000\n")
    assert memory.available(tmp_path, tmp_path) == 200_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(tmp_path, tmp_path) == 500 * 1024
    assert memory.available(tmp_path / "none", tmp_path / "none") == 0
