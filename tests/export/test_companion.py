"""The autoencoder of a latent diffusion model is found wherever it may lie, pinned, and known by what its files hold; what cannot be used
is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.data.places.hub_server import Repository
from tests.data.places.hubs import Serve
from tests.data.places.hubs import serve as serve
from trainjobs.api.errors import JobError
from trainjobs.data.places.place import ALONE
from trainjobs.data.pretrained import Pretrained
from trainjobs.export import companion
from trainjobs.export.companion import opened

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = {"config.json": json.dumps({"_class_name": "AutoencoderKL"}).encode(), WEIGHTS: b"weights" * 400, "README.md": b"# One"}


def folder(path: Path, files: dict[str, bytes] = FILES, inner: str = "") -> Path:
    (path / inner).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / inner / name).write_bytes(data)
    return path


def look(source: str, cache: Path, before: Any = None) -> Pretrained:
    return opened(source, cache, ALONE, before)


@pytest.mark.parametrize("inner", ["", "vae"])
def test_a_folder_is_read_where_it_lies_by_itself_or_in_a_pipeline(inner: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "model", inner=inner)
    found = look(f"file://{path}", tmp_path / "cache")
    assert found.folder == path / inner
    assert set(found.files) == {"config.json", WEIGHTS}


def test_the_digest_is_of_the_contents_and_another_is_refused(tmp_path: Path) -> None:
    path, twin = folder(tmp_path / "model"), folder(tmp_path / "twin", inner="vae")
    before = look(f"file://{path}", tmp_path / "cache")
    assert look(f"file://{twin}", tmp_path / "cache", before.account).digest == before.digest
    folder(twin, {WEIGHTS: b"weightz" * 400}, inner="vae")
    with pytest.raises(JobError, match=f"{WEIGHTS} differs") as refused:
        look(f"file://{twin}", tmp_path / "cache", before.account)
    assert refused.value.code == "GTJ0208"


def test_one_of_the_hub_is_fetched_and_pinned_to_its_commit(tmp_path: Path, serve: Serve) -> None:
    repository = Repository({f"vae/{name}": data for name, data in FILES.items()} | {"unet/config.json": b"{}"})
    server = serve({"org/whole": repository})
    before = look("hf://org/whole", tmp_path / "cache")
    assert before.uri == f"hf://org/whole@{repository.commit}"
    assert before.digest == look(f"file://{folder(tmp_path / 'model')}", tmp_path / "cache").digest
    assert not (before.folder / "README.md").exists()
    asked = server.state.asked.total()
    assert pinned_as(before) == before.uri
    assert server.state.asked.total() == asked  # the branch is not looked up again


def pinned_as(before: Pretrained) -> str:
    return companion.pinned(before.source, before.account)


def test_shards_are_fetched_with_their_index(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    files = {"config.json": b"{}", f"{WEIGHTS}.index.json": index, "one.safetensors": b"1", "two.safetensors": b"2"}
    found = look(f"file://{folder(tmp_path / 'model', files)}", tmp_path / "cache")
    assert set(found.files) == {*files}


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({}, "GTJ0118", "there is no autoencoder"),
        ({"config.json": b"{}"}, "GTJ0118", f"{WEIGHTS} is missing"),
        ({"config.json": b"{}", "diffusion_pytorch_model.bin": b"x"}, "GTJ0109", "no safetensors"),
    ],
)
def test_what_is_none_is_refused(files: dict[str, bytes], code: str, said: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "model", files)
    with pytest.raises(JobError, match=said) as refused:
        look(f"file://{path}", tmp_path / "cache")
    assert (refused.value.code, bool(refused.value.how)) == (code, True)


def test_ranks_that_see_different_files_are_refused(tmp_path: Path) -> None:
    one, other = (folder(tmp_path / name / "model", {**FILES, WEIGHTS: name.encode()}) for name in ("one", "other"))
    theirs = look(f"file://{other}", tmp_path / "cache")

    def gather(mine: Any) -> list[Any]:
        return [mine, mine if isinstance(mine, str) else theirs]

    with pytest.raises(JobError, match="on the machines of rank 0 and rank 1") as refused:
        opened(f"file://{one}", tmp_path / "cache", SimpleNamespace(rank=0, size=2, gather=gather))
    assert refused.value.code == "GTJ0208"
