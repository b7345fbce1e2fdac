"""The JSON schema agrees with the models, judged by jsonschema; generated files are fresh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from trainjobs.api.parse import parse
from trainjobs.api.schema import json_schema
from trainjobs.cli.generate import generated
from trainjobs.cli.init import KINDS, template
from trainjobs.cli.main import status
from trainjobs.cli.positions import documents

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft202012Validator(json_schema())


def read(text: str) -> Any:
    (document,) = documents(text)
    return document.data


def test_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted((ROOT / "manifests" / "samples").glob("*.yaml")), ids=lambda path: path.name)
def test_accepts_samples(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read(path.read_text()))] == []


@pytest.mark.parametrize("family", KINDS)
def test_accepts_templates_and_a_status(family: str) -> None:
    assert VALIDATOR.is_valid({**read(template(family)), "status": {"phase": "Running"}})


REFUSED = [
    ("spec.training.steps", 0),
    ("spec.training.steps", "10"),
    ("spec.training.steps", True),
    ("spec.training.stepps", 1),
    ("spec.vae.network.architecture", "unet"),
    ("spec.data.source", "digits"),
    ("spec.data.images.size", 31),
    ("spec.compute.workers", "two"),
    ("spec.deepspeed.stage", 4),
    ("spec.deepspeed.stage", True),
    ("spec.training.ema", None),
    ("spec.evaluation", None),
    ("spec.training.optimizers.default.betas", [0.9]),
    ("spec.gan", {}),
    ("metadata.name", "My_Job"),
    ("kind", "Pod"),
]


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_refuses_what_validate_refuses(path: str, value: Any) -> None:
    data = read(template("vae"))
    *parents, last = path.split(".")
    current = data
    for key in parents:
        current = current.setdefault(key, {})
    current[last] = value
    assert not VALIDATOR.is_valid(data)
    assert parse(data)[1]


def test_every_field_is_described() -> None:
    """Editors show the description; a field without one shows nothing."""
    schema = json_schema()
    for name, definition in schema["$defs"].items():
        for field, content in definition["properties"].items():
            target = schema["$defs"][content["$ref"].rpartition("/")[2]] if "$ref" in content else content
            part = name in ("Spec", "Gan", "Vae", "Diffusion", "Language", "Training", "Data", "Checkpoints")
            assert "description" in content or "description" in target or part, f"{name}.{field}"


def test_command_prints_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["schema"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == json_schema()
    assert status(["schema", "-o", str(tmp_path / "s.json")]) == 0
    assert (tmp_path / "s.json").read_text() == printed
    assert status(["schema", "-o", str(tmp_path / "none" / "s.json")]) == 7


def test_generated_files_are_fresh() -> None:
    for path, text in generated().items():
        assert (ROOT / path).is_file(), f"{path} is missing: make generate"
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path} is stale: make generate"


def test_no_error_page_without_a_code() -> None:
    assert {path.name for path in (ROOT / "docs" / "errors").iterdir()} == {
        path.name for path in generated() if path.parent.name == "errors"
    }


def test_reference_names_every_field() -> None:
    page = (ROOT / "docs" / "reference" / "job.md").read_text()
    for part in ("spec.training.optimizers.*", "spec.pod.env.*.secretKeyRef", "spec.checkpoints.keep.best", "spec.diffusion.sampler"):
        assert f"\n## {part}\n" in page
    assert "| **steps** | integer ≥ 1 |" in page


def test_samples_point_at_the_schema() -> None:
    for path in (ROOT / "manifests" / "samples").glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        assert (path.parent / first.partition("=")[2]).resolve().is_file()
        assert yaml.safe_load(path.read_text())["spec"]["compute"]["gpusPerWorker"] == 0
