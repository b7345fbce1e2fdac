"""Image archives made by hand: what a runtime reads of them, and that the same content gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import archive, binaries, images, layers, node


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {one.name: (tar.extractfile(one) or io.BytesIO()).read() for one in tar.getmembers() if one.isfile()}


def test_a_packed_program(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    first, second = (archive.pack(tmp_path / name, "localhost/x:1", {"/bin/x": program}, ["/bin/x"]) for name in ("a.tar", "b.tar"))
    assert first.read_bytes() == second.read_bytes()
    assert archive.name_of(first) == "localhost/x:1"
    found = members(first.read_bytes())
    (described,) = json.loads(found["manifest.json"])
    layer = found[described["Layers"][0]]
    config = json.loads(found[described["Config"]])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert config["config"]["User"] == "65532:65532"
    assert members(layer) == {"bin/x": b"\x7fELF"}


def test_an_archive_without_a_name_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(ValueError, match="names no image"):
        archive.name_of(tmp_path / "empty.tar")


@pytest.fixture
def store(tmp_path: Path) -> layers.Store:
    """buildah's store with an image of two layers."""
    for name in ("overlay-images", "overlay-layers", "overlay/low/diff/usr", "overlay/high/diff/usr"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "overlay/low/diff/usr/big").write_text("big")
    (tmp_path / "overlay/high/diff/usr/code.py").write_text("print()")
    (tmp_path / "overlay-images/images.json").write_text(json.dumps([{"id": "abcdef", "layer": "high"}]))
    (tmp_path / "overlay-layers/layers.json").write_text(json.dumps([{"id": "low"}, {"id": "high", "parent": "low"}]))
    return layers.Store(tmp_path, tmp_path / "memory.json")


def test_layers_are_packed_once_and_remembered(store: layers.Store) -> None:
    assert store.layers("abc") == ["low", "high"]
    assert store.packed("low") is None
    first, second = io.BytesIO(), io.BytesIO()
    packed = store.pack("low", first)
    assert (store.pack("low", second), second.getvalue()) == (packed, first.getvalue())
    assert store.packed("low") == packed
    assert packed == layers.Layer(f"sha256:{hashlib.sha256(first.getvalue()).hexdigest()}", len(first.getvalue()))
    assert members(first.getvalue()) == {"usr/big": b"big"}


def test_only_what_the_reader_lacks_is_handed_over(store: layers.Store) -> None:
    low, high, out = io.BytesIO(), io.BytesIO(), io.BytesIO()
    both = [store.pack("low", low), store.pack("high", high)]
    config: dict[str, Any] = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": ["buildah's own"]}}
    layers.archive("localhost/y:1", config, both, {both[1].digest: lambda: io.BytesIO(high.getvalue())}, out)
    found = members(out.getvalue())
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/y:1"
    manifest = json.loads(found[blob(entry["digest"])])
    assert [layer["digest"] for layer in manifest["layers"]] == [layer.digest for layer in both]
    assert json.loads(found[blob(manifest["config"]["digest"])])["rootfs"]["diff_ids"] == [layer.digest for layer in both]
    assert found[blob(both[1].digest)] == high.getvalue()
    assert blob(both[0].digest) not in found


def blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def test_what_is_missing_is_named_as_debian_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.os, "geteuid", lambda: 0)
    monkeypatch.setattr(node.sys, "platform", "linux")
    monkeypatch.setattr(node.shutil, "which", lambda tool: None if tool in ("ctr", "containerd", "ipset") else f"/bin/{tool}")
    assert node.missing() == "no node: apt-get install containerd ipset"
    monkeypatch.setattr(node.os, "geteuid", lambda: 1000)
    assert node.missing() == "no node: it needs Linux and root"


def test_what_a_cluster_lacks_is_said_before_anything_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of it at once, and not the disk's size after twelve minutes of building."""
    monkeypatch.setattr(images, "missing_of_the_node", lambda: "no node: it needs Linux and root")
    monkeypatch.setattr(images.shutil, "which", lambda tool: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.25.4\n")
    go.chmod(0o755)
    monkeypatch.setattr(binaries, "_go", lambda: str(go))
    machine, programs, project = images.check().splitlines()
    assert (machine, project) == ("no node: it needs Linux and root", "no images: apt-get install buildah debootstrap")
    assert "Go 1.26 is needed, and go1.25.4 is here" in programs
    go.write_text("#!/bin/sh\necho go1.26.8\n")
    assert len(images.check().splitlines()) == 2
    makefile = (images.ROOT / "Makefile").read_text()
    assert makefile.index("tests.cluster.images check") < makefile.index("tests.cluster.node up")
