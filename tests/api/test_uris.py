"""file:// URIs and the paths that they name."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.api.parse import parse
from trainjobs.api.uris import file_path, file_uri, location, meant


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/my%20faces", "/data/my faces"),
        ("file:///a%23b%3fc%25d", "/a#b?c%d"),
        ("file:///caf%C3%A9", "/café"),
        ("file:///café", "/café"),
        ("file:///caf%E9", os.fsdecode(b"/caf\xe9")),
        ("file:///100%", "/100%"),  # as other tools do with what is no escape
        ("file:///a%2520b", "/a%20b"),
        ("file:///~me/a+b", "/~me/a+b"),
    ],
)
def test_percent_escapes_are_bytes_of_the_path(uri: str, path: str) -> None:
    assert file_path(uri) == path
    assert file_path(file_uri(path)) == path


@given(st.binary(max_size=20).map(lambda raw: os.fsdecode(b"/" + raw.replace(b"\0", b"x"))))
def test_every_path_has_a_uri(path: str) -> None:
    assert file_path(file_uri(path)) == path
    file_uri(path).encode()
    if "/../" not in f"{path}/" and not path.startswith("//"):
        assert list(location(file_uri(path))) == []


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("file:///my data/a%b", "file:///my%20data/a%25b"),
        ("file:///data/a#b", "file:///data/a%23b"),
        ("file:///data/a?b", "file:///data/a%3Fb"),
        ("file://~/faces", "in a shell, file://$HOME/faces"),
        ("file://./faces", "in a shell, file://$PWD/faces"),
        ("file:///a/%2e%2E/b", "write the path that is meant"),
        ("file:///a%2f..%2fb", "write the path that is meant"),
        ("file:///a%00b", "write / between folders"),
        ("file:///a%2Fb", "write / between folders"),
        ("s3://bucket/a b", "rename the folder"),
        ("s3://bucket/a#b", "take away everything from # on"),
        ("file:///a\ud800", "file:///a%ED%A0%80"),
    ],
)
def test_the_advice_fits_what_was_typed(typed: str, advice: str) -> None:
    (breach,) = location(typed)
    assert advice in breach.how


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("/data/my faces", "write file:///data/my%20faces"),
        ("/data/100%", "write file:///data/100%25"),
        ("~/faces", "write in a shell, file://$HOME/faces"),
        ("./faces", "write in a shell, file://$PWD/faces"),
        ("file:/data/faces", "write file:///data/faces"),
        ("faces", ""),
    ],
)
def test_a_path_without_a_scheme_is_told_its_uri(typed: str, advice: str) -> None:
    data: dict[str, Any] = {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "job"},
        "spec": {"vae": {}, "data": {"source": typed}, "training": {"steps": 1}},
    }
    job, (problem,) = parse(data)
    assert job is None
    assert (problem.code, problem.how) == ("GTJ0102", advice)
    assert meant(typed) == advice.removeprefix("write ")
