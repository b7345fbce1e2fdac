"""What is trained of a pipeline follows plain torch over plain diffusers and peft at every ZeRO stage, and plain diffusers draws the same
pictures from what is exported of it. One group of processes of each size trains all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

import group
import pipelined

from tests.models.pipelines import saved
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import locate
from trainjobs.export.export import export
from trainjobs.noise import Noise
from trainjobs.sampling.draw import drawn
from trainjobs.sampling.opened import opened

pytestmark = pytest.mark.slow

STEPS, BATCH, SIZE = 4, 8, 8
LORA = {"type": "lora", "lora": {"rank": 2, "alpha": 3, "targetModules": ["to_k", "to_q", "to_v", "to_out.0"]}}
WORD = {"type": "textual-inversion", "textualInversion": {"placeholder": "<toy>", "initializer": "toy", "vectors": 2}}
BOOTH = {"instancePrompt": "a photo of thing toy", "classPrompt": "a photo of a toy", "classImages": 6, "priorLossWeight": 0.5}
# By name: the pipeline, what is trained of it, and what else is in diffusion.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "full": ("sd", {"type": "full"}, {"conditioning": {"type": "text", "dropout": 0.3}}),
    "full-text": ("v", {"type": "full", "textEncoder": True}, {"process": {"minSnrGamma": 5.0}}),
    "lora": ("sd", LORA, {}),
    "lora-text": ("sd", {**LORA, "textEncoder": True}, {}),
    "dora": ("sd", {**LORA, "lora": {"rank": 2, "useDora": True}}, {}),
    "word": ("sd", WORD, {}),
    "booth": ("sd", {**LORA, "dreambooth": BOOTH}, {}),
    "xl": ("xl", {**LORA, "textEncoder": True}, {"conditioning": {"type": "text", "dropout": 0.3}}),
    "xl-word": ("xl", WORD, {}),
    "sd3": ("sd3", LORA, {}),
    "sd3-full": ("sd3", {"type": "full"}, {}),
}
# Workers, stage, accumulation.
WAYS: dict[str, tuple[tuple[int, int, int], ...]] = {
    **dict.fromkeys(CASES, ((1, 0, 2), (2, 3, 1))),
    "lora": ((1, 0, 1), (1, 3, 2), (2, 0, 2), (2, 1, 1), (2, 2, 2), (2, 3, 1)),
    "word": ((1, 0, 1), (2, 0, 2), (2, 2, 1), (2, 3, 2)),
    "booth": ((1, 0, 1), (2, 0, 2), (2, 1, 1), (2, 3, 1)),
    "full": ((1, 0, 1), (2, 1, 2), (2, 2, 1), (2, 3, 2)),
}
EVERY = [(name, *way) for name, ways in WAYS.items() for way in ways]


def spec(name: str, root: Path, workers: int = 1, stage: int = 0, accumulation: int = 1) -> dict[str, Any]:
    kind, adapt, more = CASES[name]
    return {
        "diffusion": {
            "pretrained": {"source": f"file://{root / 'bases' / kind}"},
            "adapt": adapt,
            "sampler": {"steps": 4, "guidance": 3.0},
            **more,
        },
        "data": {"source": "builtin:shapes", "images": {"size": SIZE}, "holdout": 0.001},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": BATCH // (accumulation * workers)},
            "optimizers": {"default": {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}},
            "ema": {"decay": 0.5},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 2, "everySteps": 2, "prompts": ["a red circle", "a blue square"]},
    }


def folder(root: Path, name: str, way: tuple[int, ...]) -> Path:
    return root / f"{name}-w{way[0]}-z{way[1]}-a{way[2]}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pipelines")
    for kind in ("sd", "xl", "sd3"):
        saved(root / "bases" / kind, kind)
    saved(root / "bases" / "v", "sd", prediction="v_prediction")
    resumed = group.prepare(root / "lora-resumed", spec("lora", root, 2, 3))
    for size in (1, 2):
        runs = [str(group.prepare(folder(root, name, way), spec(name, root, *way))) for name, *way in EVERY if way[0] == size]
        group.run_group(size, [*runs, *([f"{resumed}=2"] if size == 2 else [])], root, script="at_once.py")
    group.run_group(1, [str(group.prepare(resumed, spec("lora", root)))], root, script="at_once.py")
    return root


@pytest.fixture(scope="module")
def plain(root: Path) -> Any:
    torch.set_num_threads(1)
    known: dict[str, dict[str, Tensor]] = {}

    def trained(name: str) -> dict[str, Tensor]:
        if name not in known:
            run = folder(root, name, WAYS[name][0])
            known[name] = pipelined.train(group.job(spec(name, root)), root / "bases" / CASES[name][0], run)
        return known[name]

    return trained


@pytest.mark.parametrize(("name", "workers", "stage", "accumulation"), EVERY)
def test_follows_plain_diffusers(root: Path, plain: Any, name: str, workers: int, stage: int, accumulation: int) -> None:
    theirs, ours = plain(name), group.weights(folder(root, name, (workers, stage, accumulation)), "denoiser")
    assert ours.keys() == theirs.keys()
    difference = max(float((ours[path] - theirs[path]).abs().max()) for path in theirs)
    print(f"{name} at {stage}, {workers} workers, accumulation {accumulation}: {difference:.1e}")
    assert difference < 1e-6


def test_goes_on_at_another_stage_and_number_of_workers(root: Path, plain: Any) -> None:
    theirs, ours = plain("lora"), group.weights(root / "lora-resumed", "denoiser")
    assert max(float((ours[path] - theirs[path]).abs().max()) for path in theirs) < 1e-6
