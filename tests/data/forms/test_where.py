"""data.where, against Python's own meaning of the same text."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainjobs.api.errors import JobError
from trainjobs.data.forms.records import Kind
from trainjobs.data.forms.where import condition

COLUMNS: dict[str, Kind] = {
    "language": "text",
    "width": "integer",
    "height": "integer",
    "score": "number",
    "ok": "boolean",
    "json.width": "integer",
    "my score-2": "number",
    "image": "image",
}
ROWS = [
    {"language": language, "width": width, "height": 300, "score": score, "ok": width > 250, "json.width": width, "my score-2": score}
    for language in ("en", "de", "it's")
    for width in (100, 256, 512)
    for score in (0.5, 2.0)
]


def kept(text: str, rows: list[dict[str, Any]] | None = None) -> list[int]:
    rows = ROWS if rows is None else rows
    asked = condition(text, COLUMNS)
    table = pa.table({**{name: [row[name] for row in rows] for name in asked.columns}, "row": list(range(len(rows)))})
    return table.filter(asked.expression).column("row").to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "text",
    [
        "language == 'en' and width >= 256",
        'language != "en"',
        "not (language == 'en' or score < 1)",
        "width in [100, 512]",
        "width in (100,) or language in {'de'}",
        "language not in ['en', 'de']",
        "100 < width <= 512",
        "width > height",
        "width == 256.0 and score > 1",
        'language == "it\'s"',
        "ok and not score > 1",
        "ok == True",
        "score > -1 and width > +100",
        "width in [256.0, 1.5]",
    ],
)
def test_it_means_what_python_means(text: str) -> None:
    expected = [number for number, row in enumerate(ROWS) if eval(text, {}, dict(row))]
    assert kept(text) == expected
    assert 0 < len(expected) < len(ROWS)


def test_names_that_are_no_words() -> None:
    assert kept("json.width == 256 and `my score-2` > 1") == [
        number for number, row in enumerate(ROWS) if row["width"] == 256 and row["score"] > 1
    ]
    assert kept("language == '`my score-2`'") == []
    assert kept("ok == true and score == 2") == kept("ok == True and score == 2.0")


def test_what_is_not_there_is_neither_equal_nor_unequal() -> None:
    rows = [{"width": 1}, {"width": None}, {"width": 2}]
    assert kept("width == 1", rows) == [0]
    assert kept("width != 1", rows) == [2]
    assert kept("not width == 1", rows) == [2]
    assert kept("width in [1]", rows) == [0]
    assert kept("width not in [1]", rows) == [2]
    assert kept("width == None", rows) == [1]
    assert kept("width != None", rows) == [0, 2]


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("language = 'en'", "at character 10, \"= 'en'\"", "invalid syntax"),
        ("width >", "at its end", "invalid syntax"),
        ("language == 'en' AND width > 1", "at character 18, 'AND width > 1'", "invalid syntax"),
        ("width > 'a'", "at character 1, \"width > 'a'\"", "width is whole numbers, and cannot be compared with text"),
        ("score == 1 and 5 < language", "at character 16, '5 < language'", "language is text, and cannot be compared with whole numbers"),
        ("image == 'a'", "at character 1, \"image == 'a'\"", "image holds pictures, which cannot be compared"),
        ("width", "at character 1, 'width'", "this is no comparison"),
        ("1 == 1", "at character 1, '1 == 1'", "no side of the comparison is a column"),
        ("width > None", "at character 1, 'width > None'", "nothing is larger or smaller than None"),
        ("width in 5", "at character 10, '5'", "`in` asks"),
        ("width in []", "at character 10, '[]'", "`in` asks"),
        ("language in ['a', 5]", "at character 19, '5]'", "language is text, and this is whole numbers"),
        ("width * 2 > 5", "at character 1, 'width * 2 > 5'", "no side of the comparison is a column"),
        ("__import__('os').system('true') == 0", "at character 1", "no side of the comparison is a column"),
        ("width == width.real()", "at character 10", "this is no value"),
        ("(lambda: width)() == 1", "at character 1", "no side of the comparison is a column"),
        ("language == 'ž' and width ! 1", "at character 27", "invalid syntax"),
        ("width is 5", "at character 1", "this is no comparison that is known"),
        ("(" * 220 + "ok" + ")" * 220, "", "too many nested parentheses"),
    ],
)
def test_what_cannot_be_understood_says_where(text: str, where: str, why: str) -> None:
    with pytest.raises(JobError) as raised:
        condition(text, COLUMNS)
    error = raised.value
    assert (error.code, error.where) == ("GTJ0102", "data.where")
    assert error.what.startswith(f"data.where cannot be understood {where}")
    assert error.why.startswith(why)


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(JobError) as raised:
        condition("widht > 5", COLUMNS)
    assert (raised.value.code, raised.value.what, raised.value.how) == ("GTJ0102", "the data has no column widht", 'did you mean "width"?')
    assert raised.value.why.startswith("there are language, width, height")


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("width lang.()[]'\"`=<>!andornot1,5-*:\\\n"), max_size=30))
def test_any_text_is_a_condition_or_a_job_error(text: str) -> None:
    raised = None
    try:
        condition(text, COLUMNS)
    except JobError as error:
        raised = error
    assert raised is None or raised.code == "GTJ0102"
