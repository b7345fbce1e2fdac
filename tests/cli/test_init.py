from __future__ import annotations

from pathlib import Path

import pytest

from trainjobs.cli.init import KINDS, template
from trainjobs.cli.main import status
from trainjobs.cli.manifest import load_job


@pytest.mark.parametrize("family", KINDS)
def test_what_it_writes_validates(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my-faces.yaml"
    assert status(["init", family, "-o", str(path)]) == 0
    assert f"gtj run -f {path}" in capsys.readouterr().out
    job = load_job(str(path)).job
    assert job is not None
    assert (job.spec.family, job.metadata.name) == (family, "my-faces")


@pytest.mark.parametrize("family", KINDS)
def test_template_is_short_commented_and_known_to_editors(family: str) -> None:
    lines = template(family).splitlines()
    assert lines[0] == "# yaml-language-server: $schema=gentrain.schema.json"
    assert 25 <= len(lines) <= 35
    assert sum("#" in line for line in lines) >= 8
    assert max(map(len, lines)) <= 140


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["init", "gan", "--name", "mine"]) == 0
    assert capsys.readouterr().out == template("gan", "mine")


def test_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("precious")
    assert status(["init", "vae", "-o", str(path)]) == 2
    assert path.read_text() == "precious"
    assert "is there already" in capsys.readouterr().err


def test_bad_name_and_bad_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["init", "vae", "--name", "My Job"]) == 3
    assert "GTJ0102" in capsys.readouterr().err
    assert status(["init", "vae", "-o", str(tmp_path / "none" / "job.yaml")]) == 7
    assert "GTJ0114" in capsys.readouterr().err
    assert status(["init", "vea"]) == 2
