"""A pretrained pipeline learns pictures of several shapes in whole runs: the same on one worker and on two, whatever the stage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import group
from test_buckets import differs, pictures

from tests.models.pipelines import saved

pytestmark = pytest.mark.slow

STEPS = 6  # 24 samples of 20 pictures, in micro-batches of 2


def spec(root: Path, workers: int, stage: int) -> dict[str, Any]:
    return {
        "diffusion": {"pretrained": {"source": f"file://{root}/sd"}, "adapt": {"type": "lora"}, "sampler": {"steps": 2}},
        "data": {"source": f"file://{root}/pictures", "images": {"size": 16, "channels": 3, "buckets": {"step": 8}}, "holdout": 0.0},
        "training": {
            "steps": STEPS,
            "batch": {"global": 4, "micro": 2},
            "optimizers": {"default": {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 2, "everySteps": STEPS, "prompts": ["a red circle"]},
    }


def test_a_pipeline_learns_pictures_of_several_shapes(tmp_path: Path) -> None:
    saved(tmp_path / "sd", "sd")
    for file in pictures(tmp_path / "pictures").glob("*.png"):
        file.with_suffix(".txt").write_text("a red circle" if int(file.stem) % 2 else "a blue square")
    alone, both = (group.prepare(tmp_path / f"on-{size}", spec(tmp_path, size, stage)) for size, stage in ((1, 0), (2, 2)))
    group.run_group(1, [str(alone)], tmp_path, script="at_once.py")
    group.run_group(2, [str(both)], tmp_path, script="at_once.py")
    assert "16x16: 10, 24x8: 7, 8x32: 3" in (alone / "attempts.jsonl").read_text()
    trained = group.weights(alone, "denoiser")
    assert any(float(value.abs().max()) > 0.0 for key, value in trained.items() if "lora_B" in key), "it learned nothing"
    assert differs(trained, group.weights(both, "denoiser")) <= 1e-6
    assert group.losses(alone) == pytest.approx(group.losses(both), rel=1e-5)
