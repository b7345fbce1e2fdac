"""What holds for every form: the place's own errors come through, everything is named, and no torch is imported."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.forms.laid import Board, Laid, data, everything, opened, tar
from trainjobs.api.errors import JobError
from trainjobs.data.forms.glance import glance
from trainjobs.data.forms.open import open_records
from trainjobs.data.places.place import Object


def _tar(root: Path) -> None:
    tar(root / "a.tar", {f"{row}.{end}": b"1" * (1 if end == "cls" else 30_000) for row in range(5) for end in ("cls", "jpg")})


def _parquet(root: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), root / "a.parquet", row_group_size=2)


def _jsonl(root: Path) -> None:
    (root / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'))


def _csv(root: Path) -> None:
    (root / "a.csv").write_text("text\na\nb\n")


def _text(root: Path) -> None:
    (root / "a.txt").write_text("a")


def _images(root: Path) -> None:
    (root / "a.png").write_bytes(b"png")
    (root / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n')


FORMS = {"webdataset": _tar, "parquet": _parquet, "jsonl": _jsonl, "csv": _csv, "text": _text, "images": _images}
forms = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@forms
@pytest.mark.parametrize("here", [True, False])
def test_every_row_has_a_name_of_its_own_and_every_column_a_value(root: Path, form: str, here: bool) -> None:
    FORMS[form](root)
    records, board = opened(root, here)
    rows = everything(records, board)
    names = [name for block in range(len(records.blocks)) for name in records.names(block)]
    assert records.form == form
    assert [row.name for row in rows] == names
    assert len(set(names)) == len(names) == sum(block.rows for block in records.blocks) > 0
    assert all(list(row.values) == list(records.columns) and None not in row.values.values() for row in rows)
    assert all(row.where.startswith(str(root) if here else "s3://bucket/data/") for row in rows)
    assert next(records.words()).startswith(f"{form}, ")


class Silent(Laid):
    """A bucket that answers nothing."""

    def read(self, found: Object, start: int, stop: int) -> bytes:
        raise JobError("GTJ0219", "the bucket does not answer", where=self.where(found))

    def fetch(self, found: Object, to: Path) -> None:
        self.read(found, 0, found.size)

    def contents(self, found: Object) -> bytes:
        return self.read(found, 0, found.size)


@forms
def test_a_place_that_does_not_answer_is_no_broken_data(root: Path, form: str) -> None:
    FORMS[form](root)
    place, board = Silent(root, here=False), Board(root.parent / "shelf")

    def opened_and_read() -> None:
        everything(open_records(place, place.listed(), data(), board, root.parent / "cache"), board)

    asked: list[Callable[[], object]] = [opened_and_read, lambda: glance(place, place.listed(), data(), board)]
    for ask in asked:
        with pytest.raises(JobError) as raised:
            ask()
        assert raised.value.code == "GTJ0219"


@pytest.mark.slow
def test_no_torch_is_imported() -> None:
    code = (
        "import sys, trainjobs.data.forms.glance, trainjobs.data.forms.open, trainjobs.data.forms.roles; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
