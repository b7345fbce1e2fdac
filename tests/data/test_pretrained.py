"""A base is found, fetched once, pinned and known by what its files hold; what cannot be used is refused before anything trains."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.places.hub_server import Repository
from tests.data.places.hubs import Serve
from tests.data.places.hubs import serve as serve
from trainjobs.api.errors import JobError
from trainjobs.api.pretrained import Base
from trainjobs.data.places.place import ALONE
from trainjobs.data.pretrained import Pretrained, opened
from trainjobs.data.pretrained import look as glance

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300}
FILES = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"weights" * 400, "README.md": b"# A model"}


def folder(path: Path, **changed: bytes | None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, data in {**FILES, **{name.replace("__", "."): data for name, data in changed.items()}}.items():
        if data is not None:
            (path / name).write_bytes(data)
    return path


def look(source: str, cache: Path, before: Any = None, revision: str | None = None) -> Pretrained:
    found = opened(Base(source=source, revision=revision), cache, ALONE, before)
    assert found is not None
    return found


def test_a_folder_is_read_where_it_lies(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    found = look(f"file://{path}", tmp_path / "cache")
    assert found.folder == path
    assert set(found.files) == {"config.json", "model.safetensors"}  # what is no part of the model does not count
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_the_digest_is_of_the_contents_wherever_they_lie(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other", README__md=b"other words")
    digests = [look(f"file://{path}", tmp_path / "cache").digest for path in (one, other)]
    assert digests[0] == digests[1]
    folder(other, model__safetensors=b"weightz" * 400)
    assert look(f"file://{other}", tmp_path / "cache").digest != digests[0]


def test_files_that_did_not_change_are_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path / "model")
    before = look(f"file://{path}", tmp_path / "cache")
    monkeypatch.setattr("trainjobs.data.pretrained._digest", lambda path: pytest.fail(f"{path} is read again"))
    assert look(f"file://{path}", tmp_path / "cache") == before


def test_another_base_than_the_checkpoint_s_is_refused_by_the_file_that_differs(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    before = look(f"file://{path}", tmp_path / "cache").account
    look(f"file://{path}", tmp_path / "cache", before)
    folder(path, model__safetensors=b"weightz" * 400)
    with pytest.raises(JobError, match=r"model\.safetensors differs") as error:
        look(f"file://{path}", tmp_path / "cache", before)
    assert error.value.code == "GTJ0208"


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"config__json": None}, "GTJ0118", "config.json is missing"),
        ({"model__safetensors": None}, "GTJ0118", "no weights"),
        ({"model__safetensors": None, "pytorch_model__bin": b"pickle"}, "GTJ0109", "pytorch_model.bin"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, changed: dict[str, bytes | None], code: str, words: str) -> None:
    path = folder(tmp_path / "model", **changed)
    for act in (lambda: look(f"file://{path}", tmp_path / "cache"), lambda: glance(Base(source=f"file://{path}"))):
        with pytest.raises(JobError, match=words) as error:
            act()
        assert error.value.code == code
    assert error.value.how


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        look(f"file://{tmp_path}/nowhere", tmp_path / "cache")
    assert error.value.code == "GTJ0118"
    assert "language.base.source" in error.value.how


def test_a_model_of_the_hub_is_fetched_once_and_its_commit_pinned(serve: Serve, tmp_path: Path) -> None:
    hub = serve({"org/small": Repository(dict(FILES))})
    found = look("hf://org/small", tmp_path / "cache")
    commit = hub.state.repositories["org/small"].commit
    assert found.uri == f"hf://org/small@{commit}"
    assert found.files == look(f"file://{folder(tmp_path / 'copy')}", tmp_path / "cache").files
    asked = {path: count for path, count in hub.state.asked.items() if "resolve" in path or "cdn" in path}
    assert not any("README" in path for path in asked)
    look("hf://org/small", tmp_path / "cache", found.account)
    again = {path: count for path, count in hub.state.asked.items() if "resolve" in path or "cdn" in path}
    assert again == asked


def test_a_run_that_goes_on_stays_with_the_commit_it_began_with(serve: Serve, tmp_path: Path) -> None:
    hub = serve({"org/small": Repository(dict(FILES))})
    found = look("hf://org/small", tmp_path / "cache")
    asked = hub.state.asked["/api/models/org/small"]
    assert asked == 1
    assert look("hf://org/small", tmp_path / "cache", found.account).uri == found.uri
    assert hub.state.asked["/api/models/org/small"] == asked  # main is not asked for again


@pytest.mark.parametrize(("source", "revision", "code"), [("hf://org/none", None, "GTJ0118"), ("hf://org/small", "v9", "GTJ0118")])
def test_what_the_hub_has_not_is_said(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, revision: str | None, code: str
) -> None:
    serve({"org/small": Repository(dict(FILES))})
    monkeypatch.setenv("HF_TOKEN", "jane")
    with pytest.raises(JobError) as error:
        look(source, tmp_path / "cache", revision=revision)
    assert error.value.code == code
    assert "model" in error.value.why


def test_every_rank_raises_what_one_of_them_meets(tmp_path: Path) -> None:
    class Other:
        rank, size = 0, 2

        def __init__(self, theirs: Callable[[Any], Any]) -> None:
            self.theirs = theirs

        def gather(self, value: Any) -> list[Any]:
            return [value, self.theirs(value)]

    base, cache = Base(source=f"file://{folder(tmp_path / 'model')}"), tmp_path / "cache"
    missing = JobError("GTJ0118", "there is no model", where="there")
    with pytest.raises(JobError, match="there is no model"):
        opened(base, cache, Other(lambda value: missing), None)
    changed = folder(tmp_path / "changed", model__safetensors=b"weightz")
    with pytest.raises(JobError, match="not the same everywhere") as error:
        opened(base, cache, Other(lambda value: look(f"file://{changed}", cache) if isinstance(value, Pretrained) else value), None)
    assert error.value.code == "GTJ0208"
    shutil.rmtree(changed)


def test_a_gated_model_is_a_base_that_cannot_be_used(serve: Serve, tmp_path: Path) -> None:
    serve({"org/small": Repository(dict(FILES), gated=True, readers=("jane",))})
    with pytest.raises(JobError, match="the model org/small is gated") as error:
        look("hf://org/small", tmp_path / "cache")
    assert error.value.code == "GTJ0109"
    assert "ask for access on http" in error.value.how
