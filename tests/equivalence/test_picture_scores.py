"""Scores of pictures through the loop: the same on any number of ranks, told late or waited for, and followed where they are to be."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import group

pytestmark = pytest.mark.slow

WORDS = ("fid", "is", "kid", "precision", "recall")
EVERY, STEPS = 2, 6
SPEC: dict[str, Any] = {
    "gan": {
        "generator": {"architecture": "dcgan", "latentDim": 8, "channels": 8},
        "discriminator": {"architecture": "dcgan", "channels": 8},
        "loss": {"type": "hinge"},
    },
    "data": {"source": "builtin:digits", "images": {"size": 16, "channels": 1}},
    "training": {
        "steps": STEPS,
        "batch": {"global": 16, "micro": 8},
        "optimizers": {"default": {"name": "sgd", "learningRate": 0.01}},
        "ema": {"decay": 0.9},  # whose batch norm is estimated anew, as that of the weights is of each rank's own samples
    },
    "deepspeed": {"stage": 1},
    "compute": {"workers": "1-2", "gpusPerWorker": 0},
    "evaluation": {"samples": 4, "everySteps": EVERY, "metrics": list(WORDS), "fidSamples": 101},
}


def changed(**parts: Any) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    for path, value in parts.items():
        where = spec
        *above, last = path.split("__")
        for key in above:
            where = where.setdefault(key, {})
        where[last] = value
    return spec


SLOW = {"default": {"name": "sgd", "learningRate": 1e-4}}
VAE = {
    **{key: value for key, value in SPEC.items() if key != "gan"},
    "vae": {"network": {"channels": 8, "latentDim": 4}},
    "training": {**SPEC["training"], "optimizers": SLOW},
}
DIFFUSION = {
    **{key: value for key, value in SPEC.items() if key != "gan"},
    "diffusion": {"network": {"channels": 8, "multipliers": [1, 2]}, "sampler": {"steps": 2}},
}
DIFFUSION["evaluation"] = {**SPEC["evaluation"], "metrics": [*WORDS, "instance"]}
SPECS = {
    "gan": SPEC,
    "vae": VAE,
    "diffusion": DIFFUSION,
    "best": changed(checkpoints={"every": {"steps": EVERY}, "keep": {"last": 1, "best": {"metric": "fid/digits"}}}),
    "followed": changed(training__earlyStopping={"metric": "kid/digits", "patience": 1, "minDelta": 1e6}),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scores")
    for size in (1, 2):
        group.run_group(size, [str(group.prepare(root / f"{name}-{size}", spec)) for name, spec in SPECS.items()], root)
    return root


def scores(run: Path) -> dict[int, dict[str, float]]:
    """By step."""
    found: dict[int, dict[str, float]] = {}
    for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        found.setdefault(row["step"], {}).update({name: value for name, value in row.items() if name.partition("/")[0] in WORDS})
    return {step: row for step, row in found.items() if row}


@pytest.mark.parametrize("family", ["gan", "vae", "diffusion"])
def test_scores_are_the_same_on_two_ranks(family: str, root: Path) -> None:
    alone, together = scores(root / f"{family}-1"), scores(root / f"{family}-2")
    assert [*sorted(alone)] == [*sorted(together)] == [2, 4, 6]
    for step, row in alone.items():
        assert {*row} == {f"{word}/digits" for word in WORDS}
        assert together[step] == pytest.approx(row, rel=1e-5, abs=1e-6)
    assert len({row["fid/digits"] for row in alone.values()}) == 3


def test_the_loss_at_held_out_noise_is_the_same_on_two_ranks(root: Path) -> None:
    alone, together = (group.losses(root / f"diffusion-{size}", "heldout/instance") for size in (1, 2))
    assert len(alone) == 3
    assert together == pytest.approx(alone, rel=1e-6)
    assert len(set(alone)) == 3


def test_the_best_checkpoint_may_be_chosen_by_one(root: Path) -> None:
    """It is waited for, so that each checkpoint has it."""
    for size in (1, 2):
        run = root / f"best-{size}"
        found = {step: row["fid/digits"] for step, row in scores(run).items()}
        records = [json.loads(path.read_text()) for path in sorted((run / "checkpoints" / "log").glob("*.json"))]
        commits = [record["body"] for record in records if record["kind"] == "commit"]
        assert {commit["step"]: commit["metrics"]["fid/digits"] for commit in commits} == found


def test_a_run_may_end_by_one(root: Path) -> None:
    for size in (1, 2):
        assert [*scores(root / f"followed-{size}")] == [2, 4]
        assert json.loads((root / f"followed-{size}" / "progress.json").read_text())["message"].startswith("stopped early: kid/digits")
