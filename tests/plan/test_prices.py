"""What a node costs: the profile's price, else the list's for its type in its region, else nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.profile import ProfileSpec
from trainjobs.plan import catalogue
from trainjobs.plan.prices import REGION, TYPE, foreseen, listed, seen


def profile(**spec: Any) -> ProfileSpec:
    return ProfileSpec.model_validate(spec)


P5, VIRGINIA = "p5.48xlarge", {REGION: "us-east-1"}


def test_the_profile_s_own_price_comes_first() -> None:
    found = foreseen(profile(price={"usdPerNodeHour": "30", "source": "our contract, 2026"}, node={"instanceType": P5}, selector=VIRGINIA))
    assert found is not None
    assert (found.usd, found.source) == ("30", "our contract, 2026")


def test_else_the_list_s_with_source_and_day() -> None:
    for found in (foreseen(profile(node={"instanceType": P5}, selector=VIRGINIA)), foreseen(profile(selector={TYPE: P5, **VIRGINIA}))):
        assert found is not None
        assert (found.usd, found.gpus) == ("55.04", 8)
        assert found.source == f"{catalogue.source('aws')}, {P5}"
        assert "us-east-1, 2026-" in found.source


def test_a_region_that_the_source_does_not_name_is_named() -> None:
    found = listed("Standard_NC16as_T4_v3", "westeurope", "on-demand")
    assert found is not None
    assert (found.usd, found.source.split(", ")[-2:]) == ("1.505", ["westeurope", "Standard_NC16as_T4_v3"])


def test_spot_costs_at_most_that() -> None:
    found = foreseen(profile(node={"instanceType": P5}, selector=VIRGINIA, capacity="spot"))
    assert found is not None
    assert found.source.startswith("at most, on demand: ")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"node": {"instanceType": P5}},  # in which region is not said
        {"node": {"instanceType": P5}, "selector": {REGION: "mars-1"}},
        {"node": {"instanceType": "m5.large"}, "selector": VIRGINIA},
        {"node": {"instanceType": P5}, "selector": VIRGINIA, "capacity": "reserved"},
    ],
)
def test_else_nobody_knows(spec: dict[str, Any]) -> None:
    assert foreseen(profile(**spec)) is None


def test_of_a_node_the_labels_say_which() -> None:
    assert seen({TYPE: P5, **VIRGINIA}, "on-demand").usd == "55.04"
    assert seen({TYPE: P5, **VIRGINIA}, "spot").source.startswith("at most")


@pytest.mark.parametrize(
    ("labels", "capacity", "why"),
    [
        ({TYPE: "m5.large", REGION: "us-east-1"}, "on-demand", "unknown: no list price of m5.large in us-east-1"),
        ({TYPE: P5, REGION: "eu-west-1"}, "on-demand", "unknown: no list price of p5.48xlarge in eu-west-1"),
        ({}, "on-demand", "unknown: no list price of a node without a type"),
        ({TYPE: P5, **VIRGINIA}, "reserved", "unknown: reserved nodes have no list price"),
        (None, "spot", "unknown: the profile has no price, and the operator may not look at its nodes"),
    ],
)
def test_why_there_is_none(labels: dict[str, str] | None, capacity: str, why: str) -> None:
    assert (seen(labels, capacity).usd, seen(labels, capacity).source) == ("", why)
