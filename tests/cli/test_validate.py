"""gtj validate: exit statuses, what is printed where, and what it must not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainjobs.cli.main import VERBS, status

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
GOOD = str(ROOT / "manifests" / "samples" / "vae-digits.yaml")


def test_there_are_samples() -> None:
    assert {path.name.partition("-")[0] for path in SAMPLES} == {"gan", "vae", "diffusion", "language"}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_are_valid(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["validate", "-f", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{path}: ok: {path.stem}: {path.stem.partition('-')[0]} on builtin:")
    assert printed.err == ""


@pytest.mark.parametrize("flow", [True, False])
def test_a_long_line_is_shown_around_the_mistake(flow: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, name = tmp_path / "job.yaml", "n" * 300
    written = f"metadata: {{labels: {{a: b}}, name: {name}}}" if flow else f"metadata:\n  name: {name}"
    path.write_text(Path(GOOD).read_text().replace("metadata: {name: vae-digits}", written))
    assert status(["validate", "-f", str(path)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines[1:])) <= 140
    shown, carets = next((line, lines[index + 1]) for index, line in enumerate(lines) if "nnn" in line and " | " in line)
    assert shown.endswith("…")
    assert 1 <= carets.count("^") <= 40
    assert shown[carets.index("^")] == "n"
    assert shown[carets.index("^") - 2] == ":", "the carets begin where the value does"


def test_invalid_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(Path(GOOD).read_text().replace("steps: 1500", "stepps: 2000").replace("workers: 2", "workers: 3"))
    assert status(["validate", "-f", str(path)]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert 'GTJ0101 unknown field "stepps" in spec.training' in printed.err
    assert "^^^^^^" in printed.err
    assert "nearest sizes that do: 63 or 66" in printed.err
    assert printed.err.rstrip().endswith("3 problems")  # the missing steps too


def test_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: 1\n")
    assert status(["validate", "-f", GOOD, "-f", str(bad)]) == 3
    printed = capsys.readouterr()
    assert "ok: vae-digits" in printed.out
    assert "in 1 of 2 jobs" in printed.err


def test_problems_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(Path(GOOD).read_text().replace("stage: 2", "stage: 4"))
    assert status(["validate", "-f", str(path), "-o", "json"]) == 3
    data = json.loads(capsys.readouterr().out)
    assert data["valid"] is False
    (problem,) = data["problems"]
    assert problem["code"] == "GTJ0102"
    assert problem["path"] == "spec.deepspeed.stage"
    assert path.read_text().splitlines()[problem["line"] - 1][problem["column"] - 1] == "4"
    assert status(["validate", "-f", GOOD, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"valid": True, "problems": []}


def test_notes_are_told_and_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    text = Path(GOOD).read_text()
    assert "    ema: {decay: 0.99}\n" in text
    path.write_text(text.replace("    ema: {decay: 0.99}\n", "    ema: {decay: 0.9999}\n"))
    assert status(["validate", "-f", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{path}: ok: ")
    line = path.read_text().splitlines().index("    ema: {decay: 0.9999}") + 1
    assert printed.err.startswith(f"{path}:{line}:18: GTJ0124: note: the moving average reaches back 10000 steps")
    assert "^^^^^^" in printed.err
    assert "problem" not in printed.err
    assert status(["validate", "-f", str(path), "-o", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["valid"], data["problems"], [note["code"] for note in data["notes"]]) == (True, [], ["GTJ0124"])


def test_a_note_on_what_the_command_line_changed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["validate", "-f", GOOD, "--set", "training.schedule.warmupSteps=9000"]) == 0
    assert capsys.readouterr().err.startswith("--set training.schedule.warmupSteps=9000: GTJ0123: note: the warm-up of 9000 steps")


def test_notes_wait_until_there_are_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["validate", "-f", GOOD, "--set", "training.schedule.warmupSteps=9000", "--workers", "5"]) == 3
    assert "note" not in capsys.readouterr().err


def test_set_and_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["validate", "-f", GOOD, "--set", "training.steps=7"]) == 0
    assert "7 steps of 64" in capsys.readouterr().out
    assert status(["validate", "-f", GOOD, "--workers", "5"]) == 3
    assert "5 workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (["validate"], 2, "gtj validate -f job.yaml"),
        (["validate", "-f", "/nowhere/job.yaml"], 7, "GTJ0118"),
        (["validate", "--bad"], 2, "--bad"),
        (["vaildate"], 2, 'did you mean "validate"?'),
        (["zzzz"], 2, "gtj --help"),
    ],
)
def test_misuse(arguments: list[str], expected: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(arguments) == expected
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {verb} " in printed for verb in VERBS)


def test_a_defect_of_ours_has_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("GTJ_DEBUG", raising=False)
    monkeypatch.setitem(VERBS, "validate", ("trainjobs.cli.nothing", ""))
    assert status(["validate", "-f", GOOD]) == 1
    assert "ModuleNotFoundError" in capsys.readouterr().err


def imported(*arguments: str) -> set[str]:
    """The modules that one invocation leaves in sys.modules, in a fresh interpreter."""
    code = "import sys, json; from trainjobs.cli.main import status; s = status(sys.argv[1:]); print('\\n' + json.dumps([s, *sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    result, *modules = json.loads(run.stdout.splitlines()[-1])
    assert result == 0, run.stderr
    return {str(name) for name in modules}


HEAVY = {"torch", "numpy", "ray", "deepspeed", "transformers", "rich", "jinja2", "sklearn", "PIL", "kubernetes"}


def test_validate_imports_nothing_heavy() -> None:
    modules = imported("validate", "-f", GOOD)
    assert "pydantic" in modules
    assert not modules & HEAVY


def test_help_imports_not_even_pydantic() -> None:
    assert not imported("--help") & (HEAVY | {"pydantic", "yaml"})


def test_standard_input() -> None:
    command = [sys.executable, "-m", "trainjobs.cli.main", "validate", "-f", "-"]
    run = subprocess.run(command, cwd=ROOT, input=Path(GOOD).read_bytes().replace(b"builtin:digits", b"builtin:digts"), capture_output=True)
    assert run.returncode == 3
    assert run.stderr.startswith(b"<stdin>:11:13: GTJ0102 ")


def test_an_optimizer_that_is_corrected_is_shown_as_it_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "manifests" / "samples" / "gan-digits.yaml").read_text()
    path = tmp_path / "job.yaml"
    path.write_text(text.replace("loss: {type: hinge}", "loss: {type: hinge}\n    regularization: {r1: {every: 16}}"))
    assert status(["validate", "-f", str(path)]) == 0
    told = capsys.readouterr().out.splitlines()[1:]
    settings = "adam with learningRate 0.000376471 and betas [0, 0.905595]"
    assert told == [f"  discriminator: {settings}, for one more step of R1 after every 16 of its own"]
    assert status(["validate", "-f", GOOD]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
