"""`training.compile`: weights that differ from those without it by rounding alone, and a run that goes on as it would have.

torch's own compiler, on two processes. One job always; with GENTRAIN_ALL_STAGES some of every family that is compiled, at stages 0 and 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import group
from test_any_family import GPT, events
from test_resume import digests

pytestmark = pytest.mark.slow

STEPS, STOP, WORKERS = 10, 4, 2
DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
SMALL = {"layers": 2, "hidden": 16, "heads": 2, "contextLength": 16}
KL = {"architecture": "autoencoder-kl", "channels": 4, "multipliers": [1], "blocks": 1, "latentChannels": 2, "groups": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt": GPT,
    "llama": {"language": {"network": {**SMALL, "architecture": "llama"}}, "data": {"source": "builtin:stdlib-text"}},
    "dit": {"diffusion": {"network": {"architecture": "dit", "hidden": 16, "layers": 2, "heads": 2, "patch": 2}}, "data": DIGITS},
    "unet": {"diffusion": {"network": {"channels": 8, "multipliers": [1]}}, "data": DIGITS},
    "kl": {"vae": {"network": KL}, "data": DIGITS},
}
CASES = [("gpt", 2)] if "GENTRAIN_ALL_STAGES" not in os.environ else [(name, stage) for name in FAMILIES for stage in (0, 2)]
NETWORK = {"gpt": "model", "llama": "model", "dit": "denoiser", "unet": "denoiser", "kl": "autoencoder"}


def spec(name: str, stage: int, compiled: bool) -> dict[str, Any]:
    return {
        **FAMILIES[name],
        "training": {
            "steps": STEPS,
            "batch": {"global": 8, "micro": 2},
            "ema": {"decay": 0.9},
            "optimizers": {"default": {"name": "sgd", "learningRate": 0.01, "momentum": 0.9}},
            "compile": compiled,
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": WORKERS, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STEPS}},
        "evaluation": {"samples": 1, "everySteps": STEPS},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In one group of processes whole runs, and halves, which a second goes on with: `on` compiles only from there on."""
    root = tmp_path_factory.mktemp("compiled")
    first, second = [], []
    for name, stage in CASES:
        for kind in ("plain", "compiled", "resumed", "on"):
            run = group.prepare(root / f"{name}-z{stage}-{kind}", spec(name, stage, kind in ("compiled", "resumed")))
            first.append(f"{run}={STOP}" if kind in ("resumed", "on") else str(run))
            if kind in ("resumed", "on"):
                second.append(str(run))
    group.run_group(WORKERS, first, root, script="scaled.py")
    for name, stage in CASES:
        group.prepare(root / f"{name}-z{stage}-on", spec(name, stage, compiled=True))
    group.run_group(WORKERS, second, root, script="scaled.py")
    return root


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_weights_differ_by_rounding(name: str, stage: int, runs: Path) -> None:
    plain, ours = (group.weights(runs / f"{name}-z{stage}-{kind}", NETWORK[name]) for kind in ("plain", "compiled"))
    assert plain.keys() == ours.keys()
    difference = max(float((ours[key] - plain[key]).abs().max()) for key in plain)
    print(f"{name} at stage {stage}: {difference:.1e}")
    assert 0.0 < difference <= 1e-5, "not to the last bit, or nothing would have been compiled"
    assert group.losses(runs / f"{name}-z{stage}-compiled") == pytest.approx(group.losses(runs / f"{name}-z{stage}-plain"), rel=1e-5)


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_goes_on_to_the_last_bit(name: str, stage: int, runs: Path) -> None:
    whole, resumed = runs / f"{name}-z{stage}-compiled", runs / f"{name}-z{stage}-resumed"
    assert events(resumed, "resumed")[0]["step"] == STOP
    assert digests(whole) == digests(resumed)
    assert group.losses(whole) == group.losses(resumed)


@pytest.mark.parametrize(("name", "stage"), CASES)
def test_a_run_that_is_compiled_from_here_on_says_so_once(name: str, stage: int, runs: Path) -> None:
    (told,) = events(runs / f"{name}-z{stage}-on", "changed")
    assert told["message"].count("training.compile False -> True") == 1
    assert not [event for event in events(runs / f"{name}-z{stage}-resumed", "changed") if "training.compile" in event["message"]]
