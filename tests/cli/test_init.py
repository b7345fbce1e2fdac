from __future__ import annotations

from pathlib import Path

import pytest

from trainjobs.cli.init import KINDS, template
from trainjobs.cli.main import status
from trainjobs.cli.manifest import load_job
from trainjobs.data.documents import stdlib_files


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


def test_a_custom_job_comes_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path, code = tmp_path / "my-flow.2.yaml", tmp_path / "my_flow_2_objective.py"
    assert status(["init", "custom"]) == 2
    assert "gtj init custom -o mine.yaml" in capsys.readouterr().err
    assert status(["init", "custom", "-o", str(path), "--name", "flow"]) == 0
    assert f"PYTHONPATH={tmp_path} gtj run -f {path}" in capsys.readouterr().out, "it is not where the command was run"
    job = load_job(str(path)).job
    assert job is not None
    assert job.spec.custom is not None
    assert job.spec.custom.objective == "my_flow_2_objective:build"
    assert "OBJECTIVE" not in path.read_text()
    path.unlink()
    code.write_text("precious")
    assert status(["init", "custom", "-o", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (code.read_text(), path.exists()) == ("precious", False)
    path.write_text("precious")
    code.unlink()
    assert status(["init", "custom", "-o", str(path)]) == 2
    assert not code.exists(), "nothing is written when one of the two cannot be"
    monkeypatch.chdir(tmp_path)
    path.unlink()
    assert status(["init", "custom", "-o", path.name]) == 0
    assert "here:           gtj run -f my-flow.2.yaml" in capsys.readouterr().out


def test_what_the_language_template_trains_on_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(template("language"))
    assert "the source code of Python's standard library" in path.read_text()
    job = load_job(str(path)).job
    assert job is not None
    assert job.spec.data.source == "builtin:stdlib-text"
    assert {file.path.suffix for file in stdlib_files()} == {".py"}


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
