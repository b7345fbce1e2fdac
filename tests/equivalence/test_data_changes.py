"""Data that changes under a run: refused, or told and gone on with, by the tokenizer and on the sides that the run began with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import group

pytestmark = pytest.mark.slow

STOP, STEPS = 60, 80


def sentences(first: int, last: int) -> str:
    return "".join(
        f"The number {number} is followed by {number + 1}, and its square is {number * number}.\n" for number in range(first, last)
    )


def spec(data: Path, steps: int, **checkpoints: Any) -> dict[str, Any]:
    network = {"layers": 1, "hidden": 32, "heads": 2, "contextLength": 32}
    return {
        "language": {"network": network, "tokenizer": {"type": "bpe", "vocabularySize": 400}},
        "data": {"source": f"file://{data}", "holdout": 0.1},
        "training": {"steps": steps, "batch": {"global": 16}, "optimizers": {"default": {"name": "adam", "learningRate": 0.005}}},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": 20}, **checkpoints},
        "evaluation": {"samples": 1, "everySteps": 20},
    }


def events(run: Path, kind: str) -> list[str]:
    rows = [json.loads(line) for line in (run / "attempts.jsonl").read_text().splitlines()]
    return [row["message"] for row in rows if row["event"] == kind]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that was stopped at step 60, and its text, which has grown since by a twenty-fifth."""
    root = tmp_path_factory.mktemp("grown")
    data = root / "text"
    data.mkdir()
    (data / "a.txt").write_text(sentences(0, 12_000))
    run = group.prepare(root / "run", spec(data, STEPS))
    group.run_group(1, [f"{run}={STOP}"], root)
    (data / "0.txt").write_text("Zyx wvu tsr, qponm lkjih gfedcba! " * 1_000)
    return run, data


def test_it_is_refused_and_names_what_changed(grown: tuple[Path, Path]) -> None:
    run, data = grown
    before = group.last_commit(run)
    with pytest.raises(AssertionError, match=rf"GTJ0216 the data has changed since the checkpoint of step {STOP} .*: 1 added \(0\.txt\)"):
        group.run_group(1, [str(group.prepare(run, spec(data, STEPS)))], run.parent)
    assert group.last_commit(run) == before


def test_allowed_it_goes_on_with_its_own_tokenizer_and_says_so_once(grown: tuple[Path, Path]) -> None:
    """With a tokenizer trained anew the loss leapt from 3.00 to 5.22, without a word."""
    run, data = grown
    tokenizer = (group.last_commit(run) / "rank-0" / "tokenizer.json").read_bytes()
    held = group.losses(run, "heldout/loss")
    allowed = spec(data, STEPS, allowDataChange=True)
    group.run_group(1, [str(group.prepare(run, allowed))], run.parent)
    assert group.last_commit(run).name.startswith(f"{STEPS:012d}")
    assert (group.last_commit(run) / "rank-0" / "tokenizer.json").read_bytes() == tokenizer
    curve = group.losses(run)
    assert len(curve) == STEPS
    assert max(curve[STOP : STOP + 5]) < 1.5 * max(curve[STOP - 5 : STOP])
    assert group.losses(run, "heldout/loss")[-1] < 1.1 * held[-1]
    assert events(run, "dataChanged") == [f"the data has changed since the checkpoint of step {STOP}: 1 added (0.txt)"]
    # The next checkpoint has the data as it is now: there is nothing more to tell, nor to allow.
    group.run_group(1, [str(group.prepare(run, spec(data, STEPS + 10)))], run.parent)
    assert len(events(run, "dataChanged")) == 1


def test_another_learning_rate_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(sentences(0, 2_000))
    run = group.prepare(tmp_path / "run", spec(tmp_path / "a.txt", 8))
    group.run_group(1, [f"{run}=4"], tmp_path)
    changed = spec(tmp_path / "a.txt", 8)
    changed["training"]["optimizers"]["default"]["learningRate"] = 0.001
    group.run_group(1, [str(group.prepare(run, changed))], tmp_path)
    assert events(run, "changed") == [
        "changed since the checkpoint of step 4: training.optimizers.default.learningRate 0.005 -> 0.001",
    ]
