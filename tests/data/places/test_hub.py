"""Datasets of the hub are listed, read and fetched; their revision is asked for once."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from tests.data.places.hub_server import Repository, oid
from tests.data.places.hubs import Clock, Serve
from trainjobs.api.errors import JobError
from trainjobs.data.places.hub import Dataset, open_hub, parsed

LARGE = bytes(range(256)) * 40
FILES = {
    ".gitattributes": b"*.parquet filter=lfs",
    "README.md": b"# Faces",
    "data/test-00000-of-00001.parquet": b"tiny",
    "data/train-00000-of-00002.parquet": LARGE,
    "data/train-00001-of-00002.parquet": b"small",
}
DATA = [name for name in FILES if name.endswith(".parquet")]


@pytest.mark.parametrize(
    ("uri", "dataset"),
    [
        ("hf://datasets/squad", Dataset("squad")),
        ("hf://datasets/org/name", Dataset("org/name")),
        ("hf://datasets/org/name/", Dataset("org/name")),
        ("hf://datasets/org/name/en", Dataset("org/name", "en")),
        ("hf://datasets/org/name/en/formal", Dataset("org/name", "en/formal")),
        ("hf://datasets/org/name@v1.0", Dataset("org/name", "", "v1.0")),
        ("hf://datasets/org/name/en@refs/convert/parquet", Dataset("org/name", "en", "refs/convert/parquet")),
    ],
)
def test_uris_are_taken_apart(uri: str, dataset: Dataset) -> None:
    assert parsed(uri) == dataset
    assert dataset.uri == uri.rstrip("/")


@pytest.mark.parametrize(
    ("uri", "how"),
    [
        ("hf://org/name", "write hf://datasets/org/name"),
        ("hf://models/org/name", "hf://datasets/org/name/configuration"),
        ("hf://datasets", "hf://datasets/org/name"),
        ("hf://datasets/org/na--me", "hf://datasets/org/name"),
        ("hf://datasets/org/name@", "hf://datasets/org/name"),
    ],
)
def test_other_uris_are_refused(uri: str, how: str) -> None:
    with pytest.raises(JobError, match=re.escape(how)) as error:
        parsed(uri)
    assert error.value.code == "GTJ0107"


def test_files_are_listed_page_by_page_with_their_digests(serve: Serve) -> None:
    server = serve({"org/faces": FILES})
    place = open_hub("hf://datasets/org/faces")
    listed = place.listed()
    assert [(file.name, file.size, file.tag) for file in listed.objects] == [(name, len(FILES[name]), oid(FILES[name])) for name in DATA]
    assert all(file.path is None for file in listed.objects)
    assert not listed.others
    assert server.state.asked[f"/api/datasets/org/faces/tree/{server.state.repositories['org/faces'].commit}"] == 2, "two pages"


def test_the_revision_is_resolved_once_and_a_commit_is_not_asked_for(serve: Serve) -> None:
    server = serve({"org/faces": Repository(FILES, revisions=("main", "v1/x"))})
    commit = server.state.repositories["org/faces"].commit
    place = open_hub("hf://datasets/org/faces@v1/x")
    assert place.uri == f"hf://datasets/org/faces@{commit}"
    assert server.state.asked == {"/api/datasets/org/faces/revision/v1/x": 1}
    again = open_hub(place.uri)
    assert server.state.asked.total() == 1
    assert again.listed().objects == place.listed().objects
    assert again.where(again.listed().objects[0]) == f"hf://datasets/org/faces@{commit}/{DATA[0]}"


def test_everything_is_asked_for_by_commit(serve: Serve) -> None:
    server = serve({"org/faces": FILES})
    place = open_hub("hf://datasets/org/faces")
    server.state.repositories["org/faces"].revisions = ()  # the branch moves on
    place.read(place.listed().objects[2], 0, 3)
    asked = [path for path in server.state.asked if path != "/api/datasets/org/faces"]
    assert len(asked) == 3
    assert all(f"/{place.dataset.revision}" in path for path in asked)


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (100, 9000), (10_000, 20_000), (10_235, 10_240), (10_240, 10_300), (7, 7)])
def test_ranges_are_read(serve: Serve, start: int, stop: int) -> None:
    serve({"org/faces": FILES})
    place = open_hub("hf://datasets/org/faces")
    for file in place.listed().objects:
        assert place.read(file, start, stop) == FILES[file.name][start:stop]


def test_ranges_are_read_of_a_server_that_knows_none(serve: Serve) -> None:
    server = serve({"org/faces": FILES})
    place = open_hub("hf://datasets/org/faces")
    file = place.listed().objects[1]
    server.state.faults = [("/cdn/", "no ranges")]
    assert place.read(file, 100, 9000) == LARGE[100:9000]


def test_where_a_large_file_lies_is_asked_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve({"org/faces": Repository(FILES, private=True, readers=("jane",))})
    monkeypatch.setenv("HF_TOKEN", "jane")  # which the other host must not get to see
    place = open_hub("hf://datasets/org/faces")
    file = place.listed().objects[1]
    resolve, away = f"/datasets/org/faces/resolve/{place.dataset.revision}/{file.name}", f"/cdn/org/faces/{file.name}"
    for start in range(0, 5000, 1000):
        assert place.read(file, start, start + 1000) == LARGE[start : start + 1000]
    assert (server.state.asked[resolve], server.state.asked[away]) == (1, 5)
    server.state.expired = True
    assert place.read(file, 7, 99) == LARGE[7:99], "asked anew, once it is no longer there"
    assert (server.state.asked[resolve], server.state.asked[away]) == (2, 7)


def test_files_are_fetched_and_checked(serve: Serve, tmp_path: Path) -> None:
    serve({"org/faces": {**FILES, "data/empty.parquet": b"", "data/ö #1?.parquet": b"odd"}})
    place = open_hub("hf://datasets/org/faces")
    objects = place.listed().objects
    assert len(objects) == 5
    for number, file in enumerate(objects):
        place.fetch(file, tmp_path / str(number))
        assert oid((tmp_path / str(number)).read_bytes()) == file.tag


def test_a_fetch_goes_on_where_it_was_cut_off(serve: Serve, tmp_path: Path, clock: Clock) -> None:
    server = serve({"org/faces": FILES})
    place = open_hub("hf://datasets/org/faces", patience=clock.patience())
    file = place.listed().objects[1]
    server.state.faults = [("/cdn/", "cut"), ("/cdn/", "503"), ("/cdn/", "429"), ("/cdn/", "no ranges")]
    place.fetch(file, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE
    assert not server.state.faults
    assert len(clock.pauses) == 3


def test_a_file_damaged_on_the_way_is_fetched_again_once(serve: Serve, tmp_path: Path) -> None:
    server = serve({"org/faces": FILES})
    place = open_hub("hf://datasets/org/faces")
    file = place.listed().objects[1]
    server.state.faults = [("/cdn/", "damaged")]
    place.fetch(file, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE
    server.state.faults = [("/cdn/", "damaged")] * 2
    with pytest.raises(JobError, match=r"arrives damaged .*train-00000-of-00002") as error:
        place.fetch(file, tmp_path / "file")
    assert error.value.code == "GTJ0113"


def test_a_dataset_that_was_renamed_is_followed(serve: Serve) -> None:
    server = serve({"rajpurkar/squad": FILES})
    server.state.moved = {"squad": "rajpurkar/squad"}
    place = open_hub("hf://datasets/squad")
    assert [file.name for file in place.listed().objects] == DATA
    assert place.read(place.listed().objects[2], 0, 9) == b"small"


def test_an_old_dataset_without_an_organisation_may_have_a_configuration(serve: Serve) -> None:
    serve({"glue": {"mrpc/train.jsonl": b"{}", "cola/train.jsonl": b"{}"}})
    place = open_hub("hf://datasets/glue/mrpc")
    assert place.dataset.configuration == "mrpc"
    assert [file.name for file in place.listed().objects] == ["mrpc/train.jsonl"]


def test_a_private_dataset_is_read_with_a_token(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve({"org/faces": Repository(FILES, private=True, gated=True, readers=("jane",))})
    monkeypatch.setenv("HF_TOKEN", "jane")
    place = open_hub("hf://datasets/org/faces")
    assert place.read(place.listed().objects[1], 0, 99_999) == LARGE


def test_files_of_the_hubs_own_cache_are_not_fetched(serve: Serve, tmp_path: Path) -> None:
    server = serve({"org/faces": FILES})
    place = open_hub("hf://datasets/org/faces")
    file = place.listed().objects[1]
    blobs = tmp_path / "hub" / "datasets--org--faces" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / file.tag).write_bytes(LARGE)
    server.state.asked.clear()
    place.fetch(file, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE
    assert place.read(file, 3, 99) == LARGE[3:99]
    assert not server.state.asked
    assert sorted(path.name for path in blobs.iterdir()) == [file.tag], "nothing is written there"


def test_a_place_moves_to_another_process(serve: Serve) -> None:
    serve({"org/faces": FILES})
    place = open_hub("hf://datasets/org/faces")
    there = pickle.loads(pickle.dumps(place))
    assert there == place
    assert there.listed() == place.listed()


def test_a_configuration_of_the_card_is_listed_with_its_splits(serve: Serve) -> None:
    card = "---\nconfigs:\n- config_name: en\n  data_files:\n  - {split: train, path: en/a-*}\n  - {split: test, path: en/b.jsonl}\n"
    card += "- config_name: de\n  data_files: de/*\n---\n# Words\n"
    names = ["de/a.jsonl", "en/a-1.jsonl", "en/a-2.jsonl", "en/b.jsonl", "en/c.jsonl"]
    serve({"org/words": {"README.md": card.encode(), **dict.fromkeys(names, b"{}")}})
    place = open_hub("hf://datasets/org/words/en")
    listed = place.listed()
    assert [file.name for file in listed.objects] == ["en/a-1.jsonl", "en/a-2.jsonl", "en/b.jsonl"]
    assert listed.splits == {"train": ("en/a-1.jsonl", "en/a-2.jsonl"), "test": ("en/b.jsonl",)}
    assert dict(listed.others) == {"of other configurations": 2}
    assert re.fullmatch(r"hf://datasets/org/words/en@[0-9a-f]{40}", place.uri)
