"""JSON as the operator reads, trims and keeps it, against Python's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.wire import packed, read, read_lean, without_managed_fields

TREES = st.recursive(
    st.text(st.sampled_from('ab"\\\\[]{}:, '), max_size=6) | st.integers() | st.none(),
    lambda inner: st.dictionaries(st.text(st.sampled_from('kf:"[]{'), max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.tuples(TREES, TREES, st.text(st.sampled_from('"managedFields:[]\\\\ '), max_size=30)), max_size=4),
    st.sampled_from([None, 1]),
)
def test_managed_fields_are_left_out_as_text_and_nothing_else_is(items: list[Any], indent: int | None) -> None:
    def listed(managed: bool) -> Object:
        fields = [
            {"metadata": {"managedFields": [tree, {"fieldsV1": tree}] if managed else [], "name": text}, "spec": rest}
            for tree, rest, text in items
        ]
        return {"items": fields, "metadata": {"resourceVersion": "1"}}

    text = json.dumps(listed(True), indent=indent).encode()
    assert json.loads(without_managed_fields(text)) in (listed(False), listed(True))
    assert read_lean(text) in (listed(False), listed(True))
    if b"\\\\" not in text:
        assert json.loads(without_managed_fields(text)) == listed(False)


def test_a_managed_field_with_a_list_in_it_is_read_the_long_way() -> None:
    text = b'{"items":[{"metadata":{"managedFields":[{"a":[1]}],"name":"n"}}]}'
    assert read_lean(text) == json.loads(text)
    assert read_lean(text.replace(b"[1]", b"1"))["items"][0]["metadata"] == {"managedFields": [], "name": "n"}


@pytest.mark.parametrize("key", ["]", "],", '],"', '],"x":["', "]}", "],1", "[]", '\\"]', "],null,"])
def test_a_bracket_within_a_name_of_managed_fields_deceives_nobody(key: str) -> None:
    """At a glance it is the end. In one object of a list, in all, and where the next of them begins."""
    managed = [{"fieldsV1": {f"k:{key}": {key: {}, f"{key},": {}}}}]
    one, other = ({"metadata": {"managedFields": fields, "name": key}, "spec": {key: key}} for fields in (managed, [{"a": {}}]))
    lean = {"metadata": {"managedFields": [], "name": key}, "spec": {key: key}}
    for items in ([one], [one, one], [other, one, other], [one, other, one, one]):
        found = read_lean(json.dumps({"items": items}).encode())
        whole = {"items": items}
        assert found in ({"items": [lean] * len(items)}, whole)
        assert found != whole or "\\" in key, "but for escaped backslashes the careful way does"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_json_is_read_as_python_reads_it_and_what_is_kept_comes_back(value: Any) -> None:
    """Halves of characters, large numbers and all; and of one type with it, 1 is not 1.0."""
    for text in (json.dumps(value), json.dumps(value, indent=1)):
        assert repr(read(text.encode())) == repr(json.loads(text))
    assert repr(read(packed({"value": value}))) == repr({"value": value})


@pytest.mark.parametrize(
    "text", [b"", b"{", b"{}{}", b"nul", b'"\\x"', b"\xff", b"[1,]", b"{'a': 1}", b'"\n"', b"01", b'{"a":1,"a":2}', b"1e400", b" 1 "]
)
def test_what_is_no_json_to_python_is_none_here(text: bytes) -> None:
    try:
        expected = repr(json.loads(text.decode()))
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 of either reader
            read(text)
    else:
        assert repr(read(text)) == expected


def test_what_is_nested_deeper_than_one_reader_goes_is_read_by_the_other() -> None:
    text = "[" * 400 + "]" * 400
    assert read(text.encode()) == json.loads(text)
    assert read(packed({"a": json.loads(text)})) == {"a": json.loads(text)}
