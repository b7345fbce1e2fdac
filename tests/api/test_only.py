"""When a field has an effect: one word beside it makes Python's problem, CEL's rule and the description."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from trainjobs.api.fields import Model
from trainjobs.api.only import effect_rules, only, unless
from trainjobs.api.problem import Problem


class Inner(Model):
    """What is inside."""

    size: int = 3
    share: float = 1


class Part(Model):
    kind: Literal["a", "b", "c"] = "a"
    name: Literal["x", "y"] = "x"
    loud: bool = False
    of_one: Annotated[int, only(kind="b")] = 3
    of_two: Annotated[float, only(kind=("b", "c"))] = 1
    of_others: Annotated[list[float], only(kind=unless("a", "b"))] = Field([0.5, 1])
    of_either: Annotated[str, only(kind="c", name="y")] = "t"
    of_both: Annotated[bool, only(kind="b"), only(name="y")] = False
    of_loud: Annotated[int | None, only(loud=True)] = None
    spared: Annotated[float, only(name="y", harmless=(0.0,), because="which has one already")] = 10
    inner: Annotated[Inner, only(kind=unless("a"))] = Inner()


class Whole(Model):
    part: Part = Part()
    many: dict[str, Part] = Field({})


RULES = {(rule.path, rule.message): rule for rule in effect_rules(Whole, "spec")}


class Root(Model):
    spec: Whole


def problems(**part: object) -> list[Problem]:
    root = Root(spec=Whole(part=Part.model_validate(part)))
    return [problem for rule in RULES.values() for problem in rule.problems(root)]


def only_problem(**part: object) -> Problem:
    (problem,) = problems(**part)
    return problem


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"kind": "b", "ofOne": 4},
        {"kind": "c", "ofTwo": 2.0},
        {"kind": "c", "ofOthers": [0.1]},
        {"kind": "c", "ofEither": "u"},
        {"name": "y", "ofEither": "u"},
        {"kind": "b", "name": "y", "ofBoth": True},
        {"loud": True, "ofLoud": 1},
        {"spared": 0.0},
        {"kind": "b", "inner": {"size": 4}},
        {"ofOne": 3, "ofTwo": 1.0, "ofOthers": [0.5, 1.0], "inner": {"size": 3}},  # defaults written out
    ],
)
def test_fields_with_an_effect_and_defaults_are_no_problem(part: dict[str, object]) -> None:
    assert problems(**part) == []


@pytest.mark.parametrize(
    ("part", "path", "what", "how"),
    [
        ({"ofOne": 4}, ("ofOne",), "ofOne has no effect with kind: a; use b", "or take ofOne out"),
        ({"ofTwo": 2.0}, ("ofTwo",), "ofTwo has no effect with kind: a; use b or c", "or take ofTwo out"),
        ({"kind": "b", "ofOthers": [0.1]}, ("ofOthers",), "ofOthers has no effect with kind: b; use c", "or take ofOthers out"),
        ({"kind": "b", "ofBoth": True}, ("ofBoth",), "ofBoth has no effect with x; use y", "or take ofBoth out"),
        ({"ofLoud": 1}, ("ofLoud",), "ofLoud has no effect with loud: false; use true", "or take ofLoud out"),
        ({"ofEither": "u"}, ("ofEither",), "ofEither has no effect with kind: a; use c", "or take ofEither out"),
        ({"spared": 5}, ("spared",), "spared has no effect with x, which has one already", "take spared out"),
        ({"inner": {"size": 4}}, ("inner", "size"), "size has no effect with kind: a; use b or c", "or take size out"),
    ],
)
def test_a_field_that_nobody_reads_is_named(part: dict[str, object], path: tuple[str, ...], what: str, how: str) -> None:
    problem = only_problem(**part)
    assert (problem.code, problem.path, problem.on_key) == ("GTJ0108", ("spec", "part", *path), True)
    assert (problem.what, problem.how) == (what, how)


def test_values_of_maps_are_found_at_their_place() -> None:
    root = Root(spec=Whole(many={"first": Part(), "second": Part(of_one=4)}))
    (problem,) = (problem for rule in RULES.values() for problem in rule.problems(root))
    assert problem.path == ("spec", "many", "second", "ofOne")


def test_the_server_is_asked_the_same() -> None:
    assert {rule.cel for rule in RULES.values() if rule.path == "spec.part"} == {
        "self.kind == 'b' || self.ofOne == 3",
        "(self.kind in ['b', 'c']) || self.ofTwo == 1.0",
        "!(self.kind in ['a', 'b']) || self.ofOthers == [0.5, 1.0]",
        "self.kind == 'c' || self.name == 'y' || self.ofEither == 't'",
        "self.kind == 'b' || self.ofBoth == false",
        "self.name == 'y' || self.ofBoth == false",
        "self.loud == true || !has(self.ofLoud)",
        "self.name == 'y' || self.spared in [0.0, 10.0]",
        "self.kind != 'a' || (self.inner.size == 3 && self.inner.share == 1.0)",
    }
    assert ("spec.many.*", "ofOne has no effect without kind: b") in RULES


def test_the_description_ends_with_it() -> None:
    definitions = Whole.model_json_schema()["$defs"]["Part"]["properties"]
    assert definitions["ofTwo"]["description"] == "Only with kind: b or c."
    assert definitions["ofOthers"]["description"] == "Only with kind: c."
    assert definitions["ofEither"]["description"] == "Only with kind: c or name: y."
    assert definitions["ofBoth"]["description"] == "Only with kind: b. Only with name: y."
    assert definitions["inner"]["description"] == "What is inside. Only with kind: b or c."
    assert "description" not in definitions["kind"]
