"""What is said of a data set: columns, counts, sizes, likeness, and what cannot be read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.data.real import made as files_of
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import look, open_source, surveys
from trainjobs.data.dataset import Dataset
from trainjobs.data.forms.records import Block, Kind, Record
from trainjobs.data.places.place import Object
from trainjobs.data.survey import binned, example, length, spread, survey


class Nothing:
    """A shelf that nobody needs."""

    @contextmanager
    def hold(self, place: Any, objects: Sequence[Object]) -> Iterator[list[Path]]:
        yield []

    def ahead(self, place: Any, objects: Sequence[Object]) -> None:
        pass


@dataclass
class Made:
    """Records in memory; those whose values are None are broken."""

    columns: Mapping[str, Kind]
    rows: Sequence[Sequence[Mapping[str, Any] | None]]
    form: str = "made"
    here: Path | None = Path("/here")
    place: Any = field(default_factory=lambda: SimpleNamespace(uri="s3://bucket/made"))

    @property
    def blocks(self) -> list[Block]:
        return [Block(len(rows), (Object(f"{number}.bin", 1000, "", self.here),)) for number, rows in enumerate(self.rows)]

    def names(self, block: int) -> list[str]:
        return [f"{block}/{row}" for row in range(len(self.rows[block]))]

    def read(self, shelf: Any, block: int, rows: Sequence[int], columns: Collection[str]) -> list[Record]:
        found = []
        for row in rows:
            values = self.rows[block][row]
            if values is None:
                raise JobError("GTJ0113", "it is broken", where=f"{block}.bin, row {row}", why="half of it is missing")
            found.append(Record(f"{block}/{row}", f"{block}.bin, row {row}", {name: values.get(name) for name in columns}))
        return found

    def words(self) -> Iterator[str]:
        yield "made, 2 files"


def picture(width: int, height: int, shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), shade).save(file, "PNG")
    return file.getvalue()


PICTURES = Made(
    {"image": "image", "cls": "integer", "url": "text"},
    [
        [{"image": picture(64, 100), "cls": 3, "url": "http://a"}, {"image": picture(300, 200), "cls": 1, "url": "b"}],
        [],
        [None, {"image": picture(64, 100), "cls": 3, "url": "c"}, {"image": b"<html>", "cls": 3, "url": "d"}],
    ],
)
ROLES = {"image": "image", "label": "cls"}


def test_pictures() -> None:
    found = survey(PICTURES, ROLES, Nothing(), 4, 1, ["split train"])
    assert (found.source, found.words) == ("s3://bucket/made", ("made, 2 files", "split train"))
    size = len(picture(64, 100))
    assert [(one.name, one.kind, one.role, one.example) for one in found.columns] == [
        ("image", "image", "image", f"64 x 100 PNG, {size} bytes"),
        ("cls", "integer", "label", "3"),
        ("url", "text", "", "http://a"),
    ]
    assert (found.samples, found.heldout, found.files, found.bytes, found.looked) == (4, 1, 3, 3000, 5)
    assert found.histogram is not None
    assert found.histogram.of == "shorter side, in pixels"
    assert found.histogram.bins == ((64, 127, 2), (128, 255, 1))
    assert found.labels == (("3", 3), ("1", 1))
    assert (found.duplicates, found.copies) == ((("0/0", "2/1"),), 1)
    assert found.broken == (("2.bin, row 0", "it is broken: half of it is missing"),)


def test_texts() -> None:
    messages = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "de"}]
    rows = [[{"prompt": "x" * 10, "messages": messages, "label": 1}, {"prompt": "", "messages": None, "label": 1}]]
    made = Made({"prompt": "text", "messages": "list", "label": "integer"}, rows)
    found = survey(made, {"prompt": "prompt", "messages": "messages"}, Nothing(), 2, 0)
    assert found.histogram is not None
    assert found.histogram.of == "length, in characters"
    assert found.histogram.bins == ((0, 0, 1), (1, 3, 0), (4, 15, 1))
    assert (found.histogram.least, found.histogram.most) == (0, 15)
    assert found.columns[1].example.startswith('[{"role": "user"')
    assert found.labels == ()


def test_a_data_set_whose_first_sample_is_broken_is_described_still() -> None:
    found = survey(Made({"image": "image"}, [[None, {"image": picture(8, 8)}]]), {"image": "image"}, Nothing(), 2, 0)
    assert found.columns[0].example == ""
    assert len(found.broken) == 1


def test_it_is_data_for_programs() -> None:
    data = survey(PICTURES, ROLES, Nothing(), 4, 1).as_data()
    assert json.loads(json.dumps(data)) == data
    assert data["labels"] == {"3": 3, "1": 1}
    assert data["histogram"]["bins"][0] == {"from": 64, "to": 127, "samples": 2}
    assert data["broken"] == [{"where": "2.bin, row 0", "why": "it is broken: half of it is missing"}]
    assert survey(Made({}, [[]]), {}, Nothing(), 0, 0).as_data()["histogram"] is None


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 100), st.integers(1, 10))
def test_rows_are_spread_evenly(lengths: list[int], count: int, blocks: int) -> None:
    found = spread(lengths, count, blocks)
    assert len(found) <= blocks
    assert sum(len(rows) for _, rows in found) == min(count, sum(lengths[block] for block, _ in found)) or count < blocks
    for block, rows in found:
        assert rows == sorted(set(rows))
        assert all(0 <= row < lengths[block] for row in rows)
    if count >= sum(lengths) and blocks >= len(lengths):
        assert sum(len(rows) for _, rows in found) == sum(lengths), "all of them"


def test_at_most_so_many_are_looked_at() -> None:
    made = Made({"text": "text"}, [[{"text": str(row)} for row in range(100)]] * 5)
    assert survey(made, {"text": "text"}, Nothing(), 500, 0, look=40).looked == 40
    away = Made({"text": "text"}, made.rows, here=None)
    assert survey(away, {"text": "text"}, Nothing(), 500, 0, look=40).looked == 5, "and fewer where each takes a request"


@pytest.mark.parametrize(
    ("base", "value", "low", "high"), [(2, 1, 1, 1), (2, 255, 128, 255), (2, 256, 256, 511), (4, 64, 64, 255), (4, 0, 0, 0)]
)
def test_ranges(base: int, value: int, low: int, high: int) -> None:
    found = binned("x", [value], base)
    assert found is not None
    assert found.bins == ((low, high, 1),)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (None, "text", ""),
        ("a\n  b", "text", "a b"),
        ("x" * 60, "text", "x" * 45 + "..."),
        (3, "integer", "3"),
        (b"abc", "bytes", "3 bytes"),
        (b"abc", "image", "3 bytes, no picture"),
        ([1, "é"], "list", '[1, "é"]'),
        ("\x1b[31m", "text", "\\x1b[31m"),
    ],
)
def test_examples(value: Any, kind: str, said: str) -> None:
    assert example(value, kind) == said


def test_length_of_what_is_said() -> None:
    assert length([{"role": "user", "content": "abc"}, {"role": "system", "content": [{"text": "de"}]}]) == 5
    assert length({"a": "bc"}) == 2
    assert length(3) == 0


@pytest.mark.parametrize("family", ["vae", "language", "custom"])
def test_who_has_opened_the_data_is_told_the_same_without_opening_it_again(
    family: str, job: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of.folders(12) if family == "vae" else files_of.lines(40, 20)
    for name, data in files.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    options = {"objective": "tests.data.real.recorded:build"} if family == "custom" else None
    spec, datasets = job(family, f"file://{tmp_path}/data", options, images={"size": 8}), list[Dataset]()
    found = look(spec)
    source = open_source(spec, tmp_path / "cache", found, note=datasets.append)
    fresh = surveys.surveys(spec, found, tmp_path / "fresh")
    monkeypatch.setattr(surveys, "open_dataset", lambda *_: pytest.fail("opened again"))
    monkeypatch.setattr(surveys, "open_source", lambda *_: pytest.fail("opened again"))
    assert surveys.surveys(spec, found, tmp_path / "cache", datasets=datasets, info=source.info) == fresh
