"""Which place a URI names; and that looking at data needs no heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from trainjobs.api.errors import JobError
from trainjobs.data.places.bucket import BucketPlace
from trainjobs.data.places.folder import FolderPlace
from trainjobs.data.places.open import open_place
from trainjobs.stores.open import MODULES


def test_schemes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = ModuleType("trainjobs.data.places.hub")
    hub.open_hub = lambda uri, *, patience: f"the hub's {uri}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, hub.__name__, hub)
    assert open_place("hf://datasets/a/b") == "the hub's hf://datasets/a/b"  # type: ignore[comparison-overlap]
    assert isinstance(open_place(f"file://{tmp_path}"), FolderPlace)
    for uri in ("s3://bucket", "gs://bucket/a/*.tar", "az://account/container/x"):
        place = open_place(uri)
        assert isinstance(place, BucketPlace)
        assert place.uri == uri


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://x/y", r"GTJ0107 data cannot be read from there \(http://x/y\).*use file:///folder, s3://bucket/folder, .*hf://datasets/"),
        ("nothing", "GTJ0107 data cannot be read from there"),
        ("az://account", r"GTJ0107 names no container \(az://account\). write az://account/container"),
        ("s3://", "GTJ0107 names no bucket"),
        ("s3:///folder", "GTJ0107 names no bucket"),
        ("s3://key:secret@bucket/x", r"GTJ0107 a URI carries no credentials \(s3://...\)"),
        ("s3://bucket/x?signature=secret", r"GTJ0107 a URI carries no credentials \(s3://...\)"),
        ("s3://bucket/{0..9999999}.tar", r"GTJ0107 not a pattern that can be read .*more than 100,000 objects"),
    ],
)
def test_what_cannot_be_opened(uri: str, said: str) -> None:
    with pytest.raises(JobError, match=said) as caught:
        open_place(uri)
    assert "secret" not in caught.value.line()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_missing_package_is_named_with_the_command(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULES[scheme][0], None)
    with pytest.raises(JobError, match=r"GTJ0107 a package is not installed .* needs the package .*pip install"):
        open_place(f"{scheme}://a/b/*.tar")


@pytest.mark.slow
def test_places_import_neither_torch_nor_an_sdk() -> None:
    code = "import sys, trainjobs.data.places.open, trainjobs.data.places.shelf; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "boto3", "google.cloud.storage", "azure.storage.blob", "pyarrow", "huggingface_hub"} & set(loaded)
