"""Which form data is in, by the names of its files."""

from __future__ import annotations

import pytest

from tests.data.forms.laid import data
from trainjobs.api.errors import JobError
from trainjobs.data.forms.recognise import Wants, form_of, recognise
from trainjobs.data.places.place import Listed, Object


def listed(*names: str, size: int = 1) -> Listed:
    return Listed(tuple(Object(name, size, "") for name in names))


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (("a.png", "b/c.JPG"), "images"),
        (("a.png", "metadata.jsonl", "sub/metadata.csv"), "images"),
        (("a.png", "a.txt", "README.md", "dataset.json"), "images"),
        (("train-0.tar", "README.md", "sizes.json"), "webdataset"),
        (("data/train-0.parquet", "README.md", ".gitattributes"), "parquet"),
        (("a.jsonl", "b.ndjson.gz", "c.json-lines"), "jsonl"),
        (("a.csv", "b.tsv.zst"), "csv"),
        (("a.txt", "b.md", "c.py.gz"), "text"),
        (("a.tar", "old.tar.gz"), "webdataset"),
    ],
)
def test_the_form_is_recognised(names: tuple[str, ...], form: str) -> None:
    assert recognise(listed(*names), data()) == form


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.b/.jpg", None),
        (".git/c.JPG", "images"),
        ("a.jpg/", "images"),
        ("a.JSONL.Gz", "jsonl"),
        ("a.tar.gz", None),
        ("a.jpg.zst", None),
        ("a.gz", None),
        ("jpg", None),
        ("a.jpg/b", None),
    ],
)
def test_a_name_tells_by_its_end(name: str, form: str | None) -> None:
    assert form_of(name) == form


def test_mixed_forms_are_refused_with_a_way_out() -> None:
    there = listed("a.tar", "b.tar", "c.parquet", "README.md")
    with pytest.raises(JobError) as raised:
        recognise(there, data())
    error = raised.value
    assert (error.code, error.what) == ("GTJ0113", "the data is written in several forms")
    assert error.why == "found 2 × webdataset, 1 × parquet"
    assert error.how == "set data.format to one of webdataset, parquet, or name one folder or a glob of one kind"
    assert recognise(there, data(format="parquet")) == "parquet"


@pytest.mark.parametrize(("wants", "form"), [("image", "images"), ("text", "jsonl")])
def test_a_family_chooses_among_pictures_and_text(wants: Wants, form: str) -> None:
    there = listed("a.png", "b.png", "captions.jsonl")
    with pytest.raises(JobError, match="found 2 × images, 1 × jsonl"):
        recognise(there, data())
    assert recognise(there, data(), wants=wants) == form
    assert recognise(listed("a.png", "notes.txt"), data(), wants=wants) == ("images" if wants == "image" else "text")


def test_a_form_that_is_not_there() -> None:
    with pytest.raises(JobError) as raised:
        recognise(listed("a.csv", "b.csv"), data(format="parquet"))
    assert (raised.value.code, raised.value.what, raised.value.why) == ("GTJ0113", "there is no parquet in the data", "found 2 × .csv")


def test_what_cannot_be_read() -> None:
    cases = {
        ("a.tar.gz", "b.tgz"): ("packed tar archives cannot be read", "unpack each to a plain .tar"),
        ("a.json",): ("the data is in no form that can be read", "known are .bmp"),
        (): ("the folder is empty", "put data there"),
    }
    for names, (what, how) in cases.items():
        with pytest.raises(JobError) as raised:
            recognise(listed(*names), data())
        assert (raised.value.code, raised.value.what) == ("GTJ0113", what)
        assert raised.value.how.startswith(how)
    with pytest.raises(JobError, match="GTJ0113 the data is empty"):
        recognise(listed("a.png", size=0), data())
