"""A teacher that is asked ahead by `gtj prepare --teacher`: the same weights, and another teacher is refused."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import group

from tests.models import bases
from trainjobs.cli.main import status

pytestmark = pytest.mark.slow


def spec(root: Path, teacher: str, **distill: Any) -> dict[str, Any]:
    return {
        "language": {
            "method": "distill",
            "base": {"source": f"file://{root / 'student'}"},
            "network": {"contextLength": 32},
            "distill": {"teacher": {"source": f"file://{root / teacher}"}, "topK": 5, "temperature": 2.0, **distill},
        },
        "data": {"source": f"file://{root / 'text'}", "holdout": 0.1},
        "training": {"steps": 4, "batch": {"global": 4}},
        "compute": {"workers": 1, "gpusPerWorker": 0},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("taught")
    bases.base(root / "student", "llama", layers=1)
    bases.base(root / "teacher", "gpt2", width=48)
    (root / "text").mkdir()
    (root / "text" / "one.txt").write_text(" ".join(f"{number} and {number} is {2 * number}." for number in range(600)))
    return root


@pytest.fixture(scope="module")
def taught(root: Path) -> str:
    """The place where the teacher's answers lie, put there by one process."""
    (root / "job.yaml").write_text(yaml.safe_dump(group.job(spec(root, "teacher"))))
    place = f"file://{root / 'taught'}"
    with redirect_stdout(StringIO()) as said:
        assert status(["prepare", "-f", str(root / "job.yaml"), "--teacher", "--out", place]) == 0
    assert f"train on it: language.distill.prepared: {place}" in said.getvalue()
    files = json.loads((root / "taught" / "taught.json").read_text())["files"]
    assert len([name for name in files if name.startswith("train")]) > 1, "each of two ranks has some to ask, or to read"
    return place


@pytest.mark.parametrize("size", [1, 2])
def test_a_run_has_the_weights_of_one_that_asks(size: int, root: Path, taught: str) -> None:
    """To the last bit: one process asked ahead, and as many as train ask by themselves."""
    asks = group.prepare(root / f"asks-{size}", spec(root, "teacher"))
    reads = group.prepare(root / f"reads-{size}", spec(root, "teacher", prepared=taught))
    group.run_group(size, [str(asks), str(reads)], root, script="at_once.py")
    expected, found = group.weights(asks, "model"), group.weights(reads, "model")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert group.losses(reads) == group.losses(asks)


def test_another_teacher_where_it_lay_is_refused(root: Path, taught: str) -> None:
    shutil.rmtree(root / "teacher")
    bases.base(root / "teacher", "gpt2", width=32)
    again = group.prepare(root / "changed", spec(root, "teacher", prepared=taught))
    with pytest.raises(AssertionError, match=r"GTJ0108 another teacher was asked .*language\.distill\.prepared"):
        group.run_group(1, [str(again)], root)


def test_only_a_teacher_that_is_asked_once_is_asked_ahead(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = spec(root, "teacher")
    del told["language"]["distill"]["topK"]
    (root / "live.yaml").write_text(yaml.safe_dump(group.job(told)))
    assert status(["prepare", "-f", str(root / "live.yaml"), "--teacher", "--out", f"file://{root / 'none'}"]) != 0
    assert "GTJ0108" in capsys.readouterr().err
