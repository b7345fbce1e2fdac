"""`gtj sample` of models that go on from a base: whole ones and adapters, of every task."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

import group

from tests.models import bases, task_bases
from trainjobs.cli.main import status

pytestmark = pytest.mark.slow

KINDS = {"masked": "bert", "seq2seq": "t5", "caption": "vit-gpt2", "causal": "gpt2"}
CASES = {
    **{f"{task}": (task, None) for task in KINDS},
    "chunk": ("causal", None),
    "lora": ("causal", {"rank": 2}),
    "bottleneck": ("causal", {"type": "bottleneck", "reduction": 4}),
    "prompt": ("causal", {"type": "prompt", "virtualTokens": 3}),
    "prefix": ("causal", {"type": "prefix", "virtualTokens": 3}),
    "pTuning": ("causal", {"type": "pTuning", "virtualTokens": 3}),
    "seq2seq-lora": ("seq2seq", {"rank": 2}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    for kind in ("bert", "t5", "vit-gpt2"):
        task_bases.base(root / kind, kind)
    bases.base(root / "gpt2", "gpt2")
    for name, rows in (
        ("texts", [{"text": "the cat sat on the mat. " * n} for n in range(1, 40)]),
        ("pairs", [{"source": f"{n} and {n}", "target": f"{2 * n}"} for n in range(40)]),
    ):
        (root / name).mkdir()
        (root / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folders = []
    for name, (task, adapter) in CASES.items():
        read: dict[str, Any] = {"source": f"file://{root / ('pairs' if task == 'seq2seq' else 'texts')}"}
        if task == "caption":
            read = {"source": "builtin:shapes", "images": {"size": 16}, "holdout": 0.001}
        language = {"task": task, "base": {"source": f"file://{root / KINDS[task]}"}, "network": {"contextLength": 24}}
        spec = {
            "language": {**language, **({"adapter": adapter} if adapter else {}), **({"loss": {"chunk": 8}} if name == "chunk" else {})},
            "data": read,
            "training": {"steps": 2, "batch": {"global": 4}, "optimizers": {"default": {"name": "sgd", "learningRate": 0.5}}},
            "compute": {"workers": 1, "gpusPerWorker": 0},
            "evaluation": {"samples": 3, **({"metrics": ["loss", "bleu", "rouge_l"]} if task in ("seq2seq", "caption") else {})},
        }
        folders.append(str(group.prepare(root / name, spec)))
    group.run_group(1, folders, root, script="at_once.py")
    return root


def drawn(runs: Path, name: str, out: Path, *more: str) -> list[str]:
    assert status(["sample", str(runs / name), "--out", str(out), *more]) == 0
    return [path.read_text() for path in sorted(out.glob("[0-9]*.txt"))]


@pytest.mark.parametrize("name", ["causal", "lora", "bottleneck", "prompt", "prefix"])
def test_samples_are_those_of_the_runs_own_evaluation(name: str, runs: Path, tmp_path: Path) -> None:
    drawn(runs, name, tmp_path, "--count", "3")
    (own,) = (runs / name / "samples").glob("step-*")
    assert (tmp_path / "samples.txt").read_bytes() == own.read_bytes()


def test_all_of_a_prompt_is_gone_on_from(runs: Path, tmp_path: Path) -> None:
    """Also by what learns with a loss of its own, which is told how long a prompt is."""
    assert all("the cat" in text for text in drawn(runs, "chunk", tmp_path, "--prompt", "the cat", "--count", "2"))


@pytest.mark.parametrize("name", ["seq2seq", "seq2seq-lora"])
def test_what_is_written_is_what_the_evaluation_wrote(name: str, runs: Path, tmp_path: Path) -> None:
    """Of the same sources, whose references only the data knows."""
    (own,) = (runs / name / "samples").glob("step-*")
    made = drawn(runs, name, tmp_path, "--count", "3")
    assert len(made) == 3
    assert all(text.rstrip() in own.read_text() for text in made)


def test_a_masked_model_is_asked_for_the_masks_of_a_text(runs: Path, tmp_path: Path) -> None:
    (made,) = drawn(runs, "masked", tmp_path, "--prompt", "the c<mask>t s<mask>t")
    given, _, told = made.partition("\n→ ")
    assert given == "the c<mask>t s<mask>t"
    assert "<mask>" not in told
    assert told.startswith("the c")


def test_a_captioner_is_asked_for_a_picture(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    made = drawn(runs, "caption", tmp_path / "out", "--prompt", str(tmp_path / "grey.png"))
    assert len(made) == 1
    assert status(["sample", str(runs / "caption"), "--out", str(tmp_path / "none")]) != 0
    assert "give --prompt: a picture's file" in capsys.readouterr().err
    assert status(["sample", str(runs / "caption"), "--prompt", str(tmp_path / "no.png"), "--out", str(tmp_path / "none")]) != 0
    assert "GTJ0113" in capsys.readouterr().err


def test_a_small_network_that_an_export_has_not_is_missed(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["sample", str(runs / "pTuning"), "--out", str(tmp_path)]) != 0
    assert "load the export with peft" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["seq2seq", "caption"])
def test_evaluations_score_what_is_written(name: str, runs: Path) -> None:
    rows = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
    assert {"heldout/bleu", "heldout/rouge_l", "heldout/loss"} <= rows[-1].keys()
