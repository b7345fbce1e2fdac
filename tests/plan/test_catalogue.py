"""A catalogue that is broken or huge: what can be read of it counts, the rest is left out with a line in the log, and nothing fails."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainjobs.plan import catalogue
from trainjobs.plan.prices import REGION, TYPE, seen

GOOD: dict[str, Any] = {"provider": "aws", "gpu": "l4", "gpus": 1, "usdPerHour": {"us-east-1": "1.5"}}
Written = Callable[[Any], None]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Puts a text, or an object as JSON, in the place of the catalogue."""

    def put(content: Any) -> None:
        (tmp_path / "catalogue.json").write_text(content if isinstance(content, str) else json.dumps(content))

    monkeypatch.setattr(catalogue, "PATH", tmp_path / "catalogue.json")
    for read in (catalogue.nodes, catalogue._read):
        read.cache_clear()
    yield put
    for read in (catalogue.nodes, catalogue._read):
        read.cache_clear()


def price(kind: str) -> str:
    return seen({TYPE: kind, REGION: "us-east-1"}, "on-demand").usd


def test_the_one_that_is_shipped_is_read_whole(caplog: pytest.LogCaptureFixture) -> None:
    shipped = json.loads(catalogue.PATH.read_text())
    assert list(catalogue.nodes()) == list(shipped["nodes"])
    for name, entry in shipped["nodes"].items():
        assert catalogue.nodes()[name].model_dump(by_alias=True, exclude_unset=True) == entry
    assert {provider: catalogue.source(provider) for provider in shipped["sources"]} == shipped["sources"]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "FileNotFoundError"),
        ('{"sources": {}, "nodes": {"a', "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
        ([], "TypeError"),
        ({"nodes": {}}, "KeyError: 'sources'"),
        ({"sources": {}, "nodes": ["p5.48xlarge"]}, "its tables are none"),
        (json.dumps({"sources": {}, "nodes": {"good": GOOD}}) + " " * catalogue.LARGEST, f"more than {catalogue.LARGEST} bytes"),
    ],
)
def test_one_that_cannot_be_read_leaves_costs_unknown(content: Any, why: str, written: Written, caplog: pytest.LogCaptureFixture) -> None:
    if content is not None:
        written(content)
    for _ in range(3):
        assert seen({TYPE: "good", REGION: "us-east-1"}, "on-demand").source == "unknown: no list price of good in us-east-1"
        assert catalogue.source("aws") == ""
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert why in record.getMessage()


@pytest.mark.parametrize(
    "change",
    [
        *({"usdPerHour": {"us-east-1": usd}} for usd in ("NaN", "-3", "1e999", "Infinity", "1.5 ", "", "9" * 33, 1.5, None)),
        {"usdPerHour": ["1.5"]},
        {"gpus": 0},
        {"gpus": 10**9},
        {"gpus": "8"},
        {"gpu": "l4\x1b[31m"},
        {"provider": "a" * 64},
        {"efa": -1},
    ],
)
def test_an_entry_that_is_broken_is_left_out_alone(change: dict[str, Any], written: Written, caplog: pytest.LogCaptureFixture) -> None:
    written({"sources": {}, "nodes": {"good": GOOD, "bad\x1b[2J": {**GOOD, **change}, "bad": {**GOOD, **change}, "none": None}})
    assert (price("good"), price("bad"), price("none"), price("bad\x1b[2J")) == ("1.5", "", "", "")
    (record,) = caplog.records
    assert "3 of 4 node types" in record.getMessage()
    assert record.getMessage().isprintable()


def test_a_source_is_a_line(written: Written) -> None:
    written({"sources": {"aws": "a list\n\x1b[31m of " + "x" * 10_000}, "nodes": {"good": GOOD}})
    found = seen({TYPE: "good", REGION: "us-east-1"}, "on-demand").source
    assert found.startswith("a list[31m of xxx")
    assert found.isprintable()
    assert len(found) < 300
