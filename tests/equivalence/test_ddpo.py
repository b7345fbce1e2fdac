"""DDPO however it is cut: at every ZeRO stage, on one and two workers, with accumulation, the same weights; stopped amid, the same bits.

What a step learns, and from which pictures, is held against diffusers' DDIM and by hand in tests/objectives/test_diffusion_ddpo.py; this is
about what ranks exchange: rewards of all of them, statistics of prompts, the one order of rows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group

pytestmark = pytest.mark.slow

STEPS, BATCH = 4, 8
# (ZeRO stage, workers, micro-batch); the first is the reference.
CUTS = ((0, 1, 8), (0, 1, 2), (0, 2, 4), (1, 2, 1), (2, 2, 2), (3, 2, 4))
NAMES = [f"z{stage}-w{workers}-m{micro}" for stage, workers, micro in CUTS]
STOPPED = "z3-w2-m4"


def spec(stage: int, workers: int, micro: int) -> dict[str, Any]:
    network = {"channels": 8}
    return {
        "diffusion": {
            "network": network,
            "conditioning": {"type": "class"},
            "sampler": {"steps": 4, "eta": 1.0},
            "method": "ddpo",
            "ddpo": {"reward": "tests.silence.objective:brightness", "epochs": 2, "promptBuffer": 4, "promptMinimum": 2, "clip": 0.1},
        },
        "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": micro},
            "optimizers": {"default": {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 1, "everySteps": STEPS},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ddpo")
    for name, cut in zip(NAMES, CUTS, strict=True):
        group.prepare(root / name, spec(*cut))
    again = root / f"{STOPPED}-again"
    group.prepare(again, spec(*CUTS[NAMES.index(STOPPED)]))
    group.run_group(2, [*(str(root / name) for name in NAMES if "-w2-" in name), f"{again}=2", str(again)], root)
    group.run_group(1, [str(root / name) for name in NAMES if "-w1-" in name], root)
    return root


@pytest.mark.parametrize("name", NAMES[1:])
def test_weights_do_not_depend_on_the_cut(name: str, root: Path) -> None:
    wanted, ours = (group.weights(root / one, "denoiser") for one in (NAMES[0], name))
    assert ours.keys() == wanted.keys()
    difference = max(float((ours[key] - wanted[key]).abs().max()) for key in ours)
    assert difference < 2e-6, f"{difference:.1e}"


def test_something_is_learned(root: Path) -> None:
    """Else all of these were the weights that each began with."""
    assert len({round(loss, 9) for loss in group.losses(root / NAMES[0])}) > 1


def test_a_run_that_was_stopped_goes_on_bit_for_bit(root: Path) -> None:
    ours, undisturbed = (group.weights(root / one, "denoiser") for one in (f"{STOPPED}-again", STOPPED))
    assert all(torch.equal(ours[key], undisturbed[key]) for key in undisturbed)
    assert group.losses(root / f"{STOPPED}-again") == group.losses(root / STOPPED)
