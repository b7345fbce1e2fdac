"""The table of techniques names fields and tests that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.techniques import TECHNIQUES, Technique
from trainjobs.api.job import Spec
from trainjobs.api.shape import annotation_at

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("row", TECHNIQUES, ids=lambda row: f"{row.name}-{row.field}")
def test_a_row_names_a_field_and_a_test(row: Technique) -> None:
    assert annotation_at(Spec, tuple(row.field.split("."))) is not None
    path, _, name = row.test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()
    assert row.reference
    assert 0 <= row.difference < 1e-5
