"""The list of techniques names fields and tests that there are, and has a row for every field of theirs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.techniques import PAGE, TECHNIQUES, Technique, page
from trainjobs.api.job import Spec
from trainjobs.api.shape import annotation_at, model_of, walk

ROOT = Path(__file__).parents[1]
FAMILIES = ("gan", "vae", "diffusion", "training")
SIZES = ("channels", "layers", "latentDim", "multipliers", "blocks", "hidden", "heads", "patch", "groups", "latentChannels", "attention")
# No techniques of their own: sizes of networks, how long and on how much is trained, and what chooses between techniques that have rows.
PLAIN = {
    *(f"gan.{network}.{size}" for network in ("generator", "discriminator") for size in ("channels", "layers")),
    "gan.generator.latentDim",
    "gan.augment.type",
    *(f"vae.network.{size}" for size in SIZES if size not in ("hidden", "heads", "patch")),
    *(f"diffusion.network.{size}" for size in SIZES if size not in ("latentDim", "groups", "latentChannels")),
    "diffusion.conditioning.length",
    "diffusion.conditioning.layers",
    "diffusion.process.timesteps",
    "diffusion.pretrained.revision",
    "diffusion.method",
    *(
        f"training.{field}"
        for field in ("steps", "seed", "batch.global", "batch.micro", "allowPartialWeights", "tracking.tracker", "tracking.project")
    ),
}


@pytest.mark.parametrize("row", TECHNIQUES, ids=lambda row: f"{row.name}-{row.field}")
def test_a_row_names_a_field_and_a_test(row: Technique) -> None:
    assert annotation_at(Spec, tuple(row.field.split("."))) is not None
    file, _, name = row.test.partition("::")
    assert name in {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert row.reference
    assert 0 <= float(row.difference.partition(" ")[0].removesuffix("%")) < 1e-3 or row.difference.startswith("1 % of the bound")


def lacking(rows: set[str]) -> set[str]:
    """Fields of techniques of which no row speaks, nor one of what holds them."""
    found = set()
    for field in walk(Spec):
        path = tuple(part for part in field.path if part != "*")
        if path[0] not in FAMILIES or model_of(field.annotation) is not None or ".".join(path) in PLAIN:
            continue
        if not any(".".join(path[:length]) in rows for length in range(2, len(path) + 1)):
            found.add(".".join(path))
    return found


ROWS = {row.field for row in TECHNIQUES}


def test_every_field_has_a_row() -> None:
    assert lacking(ROWS) == set()


@pytest.mark.parametrize("field", ["gan.loss.drift", "gan.regularization.orthogonal", "vae.loss.freeBits", "diffusion.process.minSnrGamma"])
def test_a_row_that_is_gone_is_missed(field: str) -> None:
    assert lacking(ROWS - {field}) == {field}


def test_what_needs_no_row_is_there() -> None:
    assert {".".join(part for part in field.path if part != "*") for field in walk(Spec)} >= PLAIN


def test_the_page_is_what_the_list_says() -> None:
    """Run `make generate` when this fails."""
    assert (ROOT / PAGE).read_text() == page()
