"""The list of techniques names fields and tests that there are, and has a row for every field of theirs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.techniques import TECHNIQUES, Technique
from trainjobs.api.diffusion import DiffusionProcess
from trainjobs.api.gan import Augment, PathLength
from trainjobs.api.job import Spec
from trainjobs.api.shape import annotation_at, fields
from trainjobs.api.vae import VaeLoss

ROOT = Path(__file__).parents[1]
PLAIN = {"timesteps", "reconstruction", "beta", "type"}  # no techniques of their own


@pytest.mark.parametrize("row", TECHNIQUES, ids=lambda row: f"{row.name}-{row.field}")
def test_a_row_names_a_field_and_a_test(row: Technique) -> None:
    assert annotation_at(Spec, tuple(row.field.split("."))) is not None
    file, _, name = row.test.partition("::")
    assert name in {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert row.reference
    assert 0 <= float(row.difference.partition(" ")[0].removesuffix("%")) < 1e-3 or row.difference.startswith("1 % of the bound")


def test_every_field_has_a_row() -> None:
    rows = {row.field for row in TECHNIQUES}
    for path, model in (
        ("diffusion.process", DiffusionProcess),
        ("vae.loss", VaeLoss),
        ("gan.regularization.pathLength", PathLength),
        ("gan.augment", Augment),
    ):
        assert {f"{path}.{name}" for name in fields(model) if name not in PLAIN} <= rows
