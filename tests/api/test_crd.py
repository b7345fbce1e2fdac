"""The converter from pydantic's JSON schema to a structural schema, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from trainjobs.api import crd
from trainjobs.api.rule import Rule
from trainjobs.api.yaml import document

ROOT = Path(__file__).parents[2]
Text = Annotated[str, Field(max_length=8)]


class Inner(BaseModel):
    size: int = 3
    note: Text | None = None


class Named(BaseModel):
    name: Text
    value: Text = ""


class Outer(BaseModel):
    """What it is."""

    inner: Inner = Inner()
    maybe: Inner | None = Field(None, description="Perhaps.")
    above: Annotated[float, Field(gt=0, lt=1)] = 0.5
    fixed: Literal["a"] = "a"
    mixed: Literal["auto", 0, 1] = "auto"
    either: Annotated[int, Field(ge=1)] | Text = 1
    free: dict[str, Any] = {}
    by_name: Annotated[dict[str, Inner], Field(max_length=4)] = {}
    items: Annotated[list[Named], Field(max_length=4)] = []


def field(name: str) -> dict[str, Any]:
    return crd.structural(Outer)["properties"][name]


def test_a_reference_is_inlined_and_its_default_spelled_out() -> None:
    assert field("inner") == {
        "type": "object",
        "properties": {"size": {"type": "integer", "default": 3}, "note": {"type": "string", "maxLength": 8}},
        "default": {"size": 3},
    }


def test_optional_is_the_type_itself_without_null_or_default() -> None:
    assert field("maybe")["description"] == "Perhaps."
    assert not {"default", "nullable", "anyOf"} & set(field("maybe"))


def test_exclusive_bounds_are_booleans_beside_the_bound() -> None:
    assert field("above") == {
        "type": "number",
        "default": 0.5,
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1,
        "exclusiveMaximum": True,
    }


def test_a_constant_is_an_enumeration() -> None:
    assert field("fixed")["enum"] == ["a"]


def test_an_enumeration_of_numbers_and_words_is_int_or_string_with_a_rule() -> None:
    assert field("mixed")["x-kubernetes-int-or-string"] is True
    assert field("mixed")["x-kubernetes-validations"] == [
        {"rule": 'type(self) == int ? self in [0, 1] : self in ["auto"]', "message": "must be one of auto, 0, 1"}
    ]


def test_int_or_str_keeps_the_bounds_of_both() -> None:
    either = field("either")
    assert (either["minimum"], either["maxLength"], either["anyOf"]) == (1, 8, [{"type": "integer"}, {"type": "string"}])


def test_maps() -> None:
    assert field("free") == {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "default": {}}
    assert field("by_name")["maxProperties"] == 4
    assert field("by_name")["additionalProperties"]["properties"]["size"]["default"] == 3


def test_a_list_of_named_objects_is_merged_by_name() -> None:
    assert field("items")["x-kubernetes-list-type"] == "map"
    assert field("items")["x-kubernetes-list-map-keys"] == ["name"]


class Endless(BaseModel):
    inner: Endless | None = None


class Unbounded(BaseModel):
    text: str


class UnboundedList(BaseModel):
    items: list[int]


class UnboundedMap(BaseModel):
    items: dict[str, int]


class Pair(BaseModel):
    both: tuple[int, int]


class Union(BaseModel):
    one: Inner | Named


class OddWords(BaseModel):
    word: Literal["a", True]


@pytest.mark.parametrize(
    "model", [Endless, Unbounded, UnboundedList, UnboundedMap, Pair, Union, OddWords], ids=lambda model: model.__name__
)
def test_what_a_structural_schema_cannot_say_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(crd.NotExpressible, match=r"^" + model.__name__):
        crd.structural(model)


def test_a_rule_for_a_field_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        crd._with_rules(crd.structural(Outer), (Rule("inner.nothing", "GTJ0108", None, "true"),))


def test_the_definition_fits_a_client_side_apply() -> None:
    """kubectl keeps a copy in an annotation; annotations end at 256 KiB, and etcd is not a place for more."""
    for definition in crd.definitions().values():
        assert len(json.dumps(definition, separators=(",", ":"))) < 200_000


def test_the_status_has_no_defaults() -> None:
    """A default there would make the operator see a difference after every write."""
    status = crd.job_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert '"default"' not in json.dumps(status)


def test_written_files_are_fresh() -> None:
    """Run `make generate` when this fails."""
    for name, definition in crd.definitions().items():
        assert yaml.safe_load((ROOT / "manifests" / "crd" / name).read_text()) == definition


def test_write_is_complete(tmp_path: Path) -> None:
    assert [path.name for path in crd.write(tmp_path / "new")] == sorted(crd.definitions())


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
words = st.sampled_from(["yes", "on", "null", "~", "1e3", "0x10", "1:30", "- a", "#a", "a: b", "true", "", " a", "2001-01-01", "="])
documents = st.recursive(
    scalars | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | words, inner, max_size=3)
)


@given(documents)
def test_yaml_reads_back_as_written(data: Any) -> None:
    assert yaml.safe_load(document(data)) == data


def test_a_definition_with_a_field_that_says_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crd, "ProfileSpec", Outer)
    monkeypatch.setattr(crd.cel, "PROFILE_RULES", ())
    with pytest.raises(crd.NotExpressible, match=r"ComputeProfile\.spec\.inner: no description"):
        crd.profile_definition()
