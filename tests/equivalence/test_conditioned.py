"""Diffusion models of a class or a text follow a plain torch loop, whatever the stage, the number of workers and the accumulation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import conditioned
import group
import plain

pytestmark = pytest.mark.slow

STEPS, BATCH = 4, 8
UNET = {"channels": 8, "multipliers": [1, 2]}
DIT = {"architecture": "dit", "hidden": 32, "layers": 2, "heads": 2, "patch": 2}
TEXT = {"type": "text", "dropout": 0.25, "length": 32, "width": 16, "layers": 1, "heads": 2}
CLASS = {"type": "class", "dropout": 0.25}
V, FLOW = {"prediction": "v"}, {"prediction": "flow"}
SHAPES = {"source": "builtin:shapes", "images": {"size": 8}, "holdout": 0.01}
DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "unet-class": (UNET, CLASS, V, DIGITS),
    "unet-text": ({**UNET, "attentionResolutions": [8, 4]}, TEXT, V, SHAPES),
    "dit-class": (DIT, CLASS, FLOW, DIGITS),
    "dit-text": (DIT, TEXT, V, SHAPES),
}
# Workers, stage, accumulation.
WAYS = ((1, 0, 1), (1, 2, 2), (1, 3, 1), (2, 0, 2), (2, 2, 1), (2, 3, 2))


def spec(name: str, stage: int, accumulation: int, workers: int) -> dict[str, Any]:
    network, conditioning, process, data = MODELS[name]
    diffusion = {"network": network, "conditioning": conditioning, "process": process, "sampler": {"steps": 2, "guidance": 2.0}}
    return {
        "diffusion": diffusion,
        "data": data,
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": BATCH // (accumulation * workers)},
            "optimizers": {"default": {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 4},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, in two groups of processes."""
    root = tmp_path_factory.mktemp("conditioned")
    for size in (1, 2):
        folders = [
            str(group.prepare(root / f"{name}-z{stage}-a{accumulation}-w{size}", spec(name, stage, accumulation, size)))
            for name in MODELS
            for workers, stage, accumulation in WAYS
            if workers == size
        ]
        group.run_group(size, folders, root)
    return root


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, plain.Result]:
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("plain")
    return {name: conditioned.train(group.job(spec(name, 0, 1, 1)), cache / name) for name in MODELS}


@pytest.mark.parametrize(("size", "stage", "accumulation"), WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_follows_plain_torch(name: str, stage: int, accumulation: int, size: int, runs: Path, references: dict[str, plain.Result]) -> None:
    run, expected = runs / f"{name}-z{stage}-a{accumulation}-w{size}", references[name]
    assert group.losses(run) == pytest.approx(expected.losses["loss"], rel=1e-5)
    ours = group.weights(run, "denoiser")
    for key, parameter in expected.networks["denoiser"].named_parameters():
        torch.testing.assert_close(ours[key], parameter.detach(), rtol=1e-6, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", MODELS)
def test_what_is_measured_and_drawn_does_not_depend_on_the_cut(name: str, runs: Path) -> None:
    folders = [runs / f"{name}-z{stage}-a{accumulation}-w{size}" for size, stage, accumulation in WAYS]
    first, *others = [group.losses(folder, "heldout/loss") for folder in folders]
    assert first
    for values in others:
        assert values == pytest.approx(first, rel=1e-4)
