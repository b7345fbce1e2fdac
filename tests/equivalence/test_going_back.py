"""What a run writes beside its weights follows the commit it goes back to; and what it does beside its steps is heard."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import as_tensorboard
import group

pytestmark = pytest.mark.slow

STEPS, SAVES, LOOKS = 20, 5, 3
DATA = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
VAE: dict[str, Any] = {
    "vae": {"network": {"channels": 4}},
    "data": DATA,
    "training": {"steps": STEPS, "batch": {"global": 8}},
    "deepspeed": {"stage": 0},
    "compute": {"workers": 1, "gpusPerWorker": 0},
    "checkpoints": {"every": {"steps": SAVES}},
    "evaluation": {"samples": 1, "everySteps": LOOKS},
}
DUE = sorted({*range(LOOKS, STEPS + 1, LOOKS), STEPS})


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("beside")
    for name in ("whole", "killed"):
        group.prepare(root / name, VAE)
    (root / "killed" / "killed").write_text("10")
    with pytest.raises(AssertionError, match="-9"):
        group.run_group(1, [str(root / "killed")], root, script="disturbed.py")
    (root / "killed" / "samples" / "step-000012.png").write_bytes(b"of a future that never was")
    (root / "killed" / "samples" / "step-000013.png").write_bytes(b"of a future that never was")
    for name in ("whole", "killed"):
        group.run_group(1, [str(root / name)], root, script="disturbed.py")
    return root


def test_twenty_steps_are_twenty_points_after_a_kill_behind_a_commit(root: Path) -> None:
    run = root / "killed"
    assert [row["step"] for row in rows(run, "attempts.jsonl") if row["event"] == "resumed"] == [10]
    found = as_tensorboard.steps(run / "events")
    assert {"loss", "samples", "throughput", "data/wait", "lr/autoencoder", "heldout/loss"} <= found.keys()
    assert len(list((run / "events").iterdir())) == 2
    for name, steps in found.items():
        assert steps == (DUE if name == "heldout/loss" else list(range(1, STEPS + 1))), name
    assert [row["step"] for row in rows(run, "metrics.jsonl") if "loss" in row] == list(range(1, STEPS + 1))


def test_the_points_are_those_of_a_run_that_was_not_killed(root: Path) -> None:
    ours, whole = (as_tensorboard.shown(root / name / "events") for name in ("killed", "whole"))
    for name in ("loss", "samples", "heldout/loss", "lr/autoencoder"):
        assert ours[name] == whole[name], name


def test_samples_and_timeline_are_those_of_a_run_that_was_not_killed(root: Path) -> None:
    names = [sorted(path.name for path in (root / name / "samples").iterdir()) for name in ("killed", "whole")]
    drawn = [f"{kind}-{step:06d}.png" for kind in ("between", "reconstructed", "step") for step in DUE]
    assert names[0] == names[1] == sorted(["data.json", "data.png", "real.png", *drawn])
    for step in DUE:
        one, other = ((root / name / "samples" / f"step-{step:06d}.png").read_bytes() for name in ("killed", "whole"))
        assert one == other
    for kind, steps in (("evaluated", DUE), ("checkpoint", list(range(SAVES, STEPS + 1, SAVES)))):
        assert [row["step"] for row in rows(root / "killed", "attempts.jsonl") if row["event"] == kind] == steps


def test_seconds_of_both_attempts_are_counted(root: Path) -> None:
    begun = [row["spent"] for row in rows(root / "killed", "attempts.jsonl") if row["event"] in ("started", "resumed")]
    spent = json.loads((root / "killed" / "progress.json").read_text())["spent"]
    assert begun[0] == {"steps": 0.0, "evaluations": 0.0, "saves": 0.0}
    assert 0 < begun[1]["steps"] < spent["steps"]
    span = [row["time"] for row in rows(root / "killed", "attempts.jsonl")]
    assert sum(spent.values()) < span[-1] - span[0]


def test_a_run_that_draws_is_heard_and_shows_signs_of_life(tmp_path: Path) -> None:
    """A watchdog that heard nothing but steps would end it."""
    spec = {**VAE, "vae": None, "diffusion": {"network": {"channels": 8}}, "evaluation": {}, "checkpoints": {}}
    spec["training"] = {"steps": 4, "batch": {"global": 8}}
    run = group.prepare(tmp_path / "run", {name: value for name, value in spec.items() if value is not None})
    group.run_group(2, [str(run)], tmp_path, script="disturbed.py")
    heard = json.loads((run / "heard.json").read_text())
    assert [word for word in heard["words"] if word.startswith("saving")] == [f"saving step {step}" for step in range(1, 5)]
    drawing = [word for word in heard["words"] if word.startswith("drawing")]
    assert list(dict.fromkeys(drawing)) == [f"drawing 4 samples, {done}/4" for done in range(4)]
    assert heard["beats"].count(4) > 50, "one for each pass"
    assert [row["message"].split(":")[0] for row in rows(run, "attempts.jsonl") if row["event"] == "note"] == ["samples"]
    told = json.loads((run / "progress.json").read_text())
    assert (told["activity"], told["etaSeconds"]) == (None, 0)
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["data.json", "data.png", "real.png", "step-000004.png"]
