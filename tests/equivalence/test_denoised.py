"""Techniques of diffusion models and VAEs follow a plain torch loop, whatever the stage, the number of workers and the accumulation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import denoised
import group
import plain

pytestmark = pytest.mark.slow

STEPS, BATCH = 3, 8
ADAMW = {"name": "adamw", "learningRate": 1e-3, "weightDecay": 0.01, "eps": 1e-4}
SGD = {"name": "sgd", "learningRate": 0.02}


def diffusion(**process: Any) -> dict[str, Any]:
    return {"diffusion": {"network": {"channels": 8, "multipliers": [1, 2]}, "process": process, "sampler": {"steps": 2}}}


TECHNIQUES: dict[str, dict[str, Any]] = {
    "weighted": diffusion(prediction="v", schedule="scaled-linear", minSnrGamma=5, zeroTerminalSnr=True),
    "variance": diffusion(prediction="sample", schedule="scaled-linear", learnedVariance=True),
    "flow": diffusion(prediction="flow", timeSampling="logit-normal", shift=3),
    "learned": diffusion(schedule="learned"),
    "annealed": {
        "vae": {
            "network": {"channels": 8, "latentDim": 4},
            "loss": {"beta": 2.0, "annealing": {"type": "cyclical", "steps": 2, "cycles": 1}, "freeBits": 0.02},
        }
    },
}
MEASURED = {"weighted": "bits", "variance": "bits", "learned": "bits", "annealed": "active_units"}
# Workers, stage, accumulation: each value of each, and most of their pairs.
WAYS = ((1, 0, 1), (1, 1, 2), (2, 0, 2), (2, 2, 1), (2, 3, 2))


def spec(name: str, stage: int, accumulation: int, workers: int) -> dict[str, Any]:
    return {
        **TECHNIQUES[name],
        "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": BATCH // (accumulation * workers)},
            "optimizers": {"default": ADAMW if accumulation == 1 else SGD},
            "gradientClipping": 0.5,
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STEPS}},
        "evaluation": {"samples": 1, "everySteps": STEPS, "metrics": ["loss", *([MEASURED[name]] if name in MEASURED else [])]},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, in two groups of processes."""
    root = tmp_path_factory.mktemp("denoised")
    for size in (1, 2):
        folders = [
            str(group.prepare(root / f"{name}-z{stage}-a{accumulation}-w{size}", spec(name, stage, accumulation, size)))
            for name in TECHNIQUES
            for workers, stage, accumulation in WAYS
            if workers == size
        ]
        group.run_group(size, folders, root)
    return root


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], plain.Result]:
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("plain")
    return {(name, a): denoised.train(group.job(spec(name, 0, a, 1)), cache / name) for name in TECHNIQUES for a in (1, 2)}


@pytest.mark.parametrize(("size", "stage", "accumulation"), WAYS)
@pytest.mark.parametrize("name", TECHNIQUES)
def test_follows_plain_torch(
    name: str, stage: int, accumulation: int, size: int, runs: Path, references: dict[tuple[str, int], plain.Result]
) -> None:
    run, expected = runs / f"{name}-z{stage}-a{accumulation}-w{size}", references[name, accumulation]
    for metric, curve in expected.losses.items():
        assert group.losses(run, metric) == pytest.approx(curve, rel=1e-5), metric
    for network, module in expected.networks.items():
        ours = group.weights(run, network)
        for key, parameter in module.named_parameters():
            torch.testing.assert_close(ours[key], parameter.detach(), rtol=1e-6, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", MEASURED)
def test_what_is_measured_does_not_depend_on_the_cut(name: str, runs: Path) -> None:
    alike = [(size, stage) for size, stage, accumulation in WAYS if accumulation == 2]
    found = [group.losses(runs / f"{name}-z{stage}-a2-w{size}", f"heldout/{MEASURED[name]}") for size, stage in alike]
    assert len(found[0]) >= 1
    for values in found[1:]:
        assert values == pytest.approx(found[0], rel=1e-4)
