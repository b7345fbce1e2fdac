"""Which column is what, and the numbers of classes."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.data import Columns
from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Kind
from trainjobs.data.forms.roles import classes, roles


@pytest.mark.parametrize(
    ("columns", "family", "expected"),
    [
        ({"jpg": "image", "cls": "integer"}, "diffusion", {"image": "jpg", "label": "cls"}),
        ({"image": "image", "text": "text", "label": "integer"}, "vae", {"image": "image", "caption": "text", "label": "label"}),
        ({"image": "image", "text": "text", "label": "integer"}, "language", {"text": "text", "label": "label"}),
        ({"img": "image", "fine_label": "integer"}, "gan", {"image": "img", "label": "fine_label"}),
        ({"jpg": "image", "json": "record", "json.caption": "text"}, "diffusion", {"image": "jpg", "caption": "json.caption"}),
        ({"image": "image", "text": "list", "label": "number"}, "diffusion", {"image": "image"}),
        ({"Content": "text"}, "language", {"text": "Content"}),
        ({"image": "image", "folder": "text"}, "custom", {"image": "image"}),
        ({"prompt": "text", "response": "text"}, "custom", {"prompt": "prompt", "completion": "response"}),
        ({"jpg": "bytes", "png": "image"}, "gan", {"image": "jpg"}),
    ],
)
def test_usual_names_are_recognised(columns: dict[str, Kind], family: str, expected: dict[str, str]) -> None:
    assert roles(columns, Columns(), "text", family) == expected


def test_what_the_manifest_names_comes_first() -> None:
    columns: dict[str, Kind] = {"image": "image", "text": "text", "alt": "text", "other": "image"}
    found = roles(columns, Columns(image="other", caption="alt"), "text", "diffusion")
    assert found == {"image": "other", "caption": "alt"}
    assert roles({"text": "text", "body": "text"}, Columns(), "body", "language") == {"text": "body"}
    assert roles({"text": "text", "body": "text"}, Columns(text="text"), "body", "language") == {"text": "text"}


def refused(columns: dict[str, Kind], asked: Columns, family: str = "language", field: str = "text") -> JobError:
    with pytest.raises(JobError) as raised:
        roles(columns, asked, field, family)
    return raised.value


def test_an_unknown_column_gets_the_list() -> None:
    error = refused({"image": "image", "text_en": "text"}, Columns(caption="text_eng"), "diffusion")
    assert (error.code, error.where, error.what) == ("GTJ0102", "data.columns.caption", "the data has no column text_eng")
    assert (error.why, error.how) == ("there are image, text_en", 'did you mean "text_en"?')
    assert refused({"a": "text"}, Columns(), field="body").where == "data.text.field"
    many: dict[str, Kind] = {f"c{number}": "text" for number in range(100)}
    assert refused(many, Columns(text="x")).why.endswith("c39 and 60 more")


def test_a_column_of_another_kind() -> None:
    error = refused({"image": "image", "width": "integer", "alt": "text"}, Columns(caption="width"), "vae")
    assert (error.code, error.what) == ("GTJ0102", "the column width cannot be caption")
    assert (error.why, error.how) == ("it holds whole numbers, and caption is text", "that would be alt")


def test_what_the_family_needs() -> None:
    error = refused({"name": "text", "story": "text", "n": "integer"}, Columns())
    assert (error.code, error.where) == ("GTJ0108", "data.source")
    assert error.what == "a language job learns from text, and the data has none that is known by its name"
    assert error.why == "its columns are name (text), story (text), n (whole numbers)"
    assert error.how == "set data.columns.text to name or story"
    error = refused({"text": "text"}, Columns(), "gan")
    assert (error.code, error.how) == ("GTJ0108", "choose data that holds images")


@pytest.mark.parametrize(
    ("values", "numbers", "names"),
    [
        ([2, 0, 1, 2], {0: 0, 1: 1, 2: 2}, ("0", "1", "2")),
        ([1, 2, 3], {1: 0, 2: 1, 3: 2}, ("1", "2", "3")),
        (["dog", "cat", "dog"], {"cat": 0, "dog": 1}, ("cat", "dog")),
        ([True, False], {False: 0, True: 1}, ("0", "1")),
        ([-1, 5], {-1: 0, 5: 1}, ("-1", "5")),
        (["10", "9"], {"10": 0, "9": 1}, ("10", "9")),
    ],
)
def test_classes(values: list[Any], numbers: dict[Any, int], names: tuple[str, ...]) -> None:
    found = classes(values, "label", "data")
    assert (found.numbers, found.names) == (numbers, names)
    assert found.number(values[0], "a") == numbers[values[0]]
    with pytest.raises(JobError, match="GTJ0113 the label is of no class"):
        found.number("other", "a")


def test_names_that_the_data_gives_its_numbers() -> None:
    found = classes([2, 0], "label", "data", ["cat", "dog", "owl"])
    assert (dict(found.numbers), found.names) == ({0: 0, 1: 1, 2: 2}, ("cat", "dog", "owl"))
    with pytest.raises(JobError, match=r"GTJ0113 label has a class without a name .*-1 is none of the 3 numbers"):
        classes([2, -1], "label", "data", ["cat", "dog", "owl"])


@pytest.mark.parametrize(
    ("values", "what"), [([1, None], "samples have no label"), ([1, "a"], "label is no label"), ([0.5], "label is no label")]
)
def test_what_is_no_label(values: list[Any], what: str) -> None:
    with pytest.raises(JobError) as raised:
        classes(values, "label", "data")
    assert (raised.value.code, raised.value.what) == ("GTJ0113", what)
