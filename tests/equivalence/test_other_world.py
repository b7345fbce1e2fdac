"""A run that was stopped goes on with another number of workers, at another ZeRO stage, or both, and its losses are those of the run that
nobody stopped, to 1e-6 in fp32: optimizer state, moving averages and counts of steps arrive where they belong.

Four processes share two cores here; the networks are small enough for that, and odd enough in shape that no part is even.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group

pytestmark = pytest.mark.slow

STEPS, STOP = 6, 3
DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
LANGUAGE = {
    "language": {"network": {"layers": 1, "hidden": 36, "heads": 3, "contextLength": 16, "dropout": 0.1}},
    "data": {"source": "builtin:stdlib-text"},
}
# No spectral norm: its power iteration advances once a forward pass, and how many there are depends on the workers.
GAN = {"gan": {"generator": {"latentDim": 8, "channels": 4}, "discriminator": {"channels": 4}, "loss": {"type": "hinge"}}, "data": DIGITS}
VAE = {"vae": {"network": {"channels": 5}}, "data": DIGITS}
ADAMW = {"name": "adamw", "learningRate": 1e-2, "weightDecay": 0.01}
SGD = {"name": "sgd", "learningRate": 1e-2, "momentum": 0.9}
RMSPROP = {"name": "rmsprop", "learningRate": 1e-3, "momentum": 0.5}

# What adapts, amid its course: one evaluation that was no better, the step before a thaw, and half of the signs that move p.
PLATEAU = {"schedule": {"name": "plateau", "patience": 1, "threshold": 0.9, "factor": 0.5, "cooldown": 1}}
THAW = {"freeze": ["autoencoder.encoder"], "unfreeze": [{"step": STOP + 1, "patterns": ["autoencoder.encoder.*"]}]}
ADA = {**GAN, "gan": {**GAN["gan"], "augment": {"type": "ada", "everySteps": 2, "images": 40, "target": 0.0}}}

# name: (family, optimizer, (workers, stage) before, (workers, stage) after), and what else is said of training
CASES: dict[str, tuple[Any, ...]] = {
    **{f"language-z{z}-{a}-{b}": (LANGUAGE, ADAMW, (a, z), (b, z)) for z in (0, 1, 2, 3) for a, b in ((2, 1), (1, 2), (2, 4))},
    "gan-z0-2-1": (GAN, ADAMW, (2, 0), (1, 0)),
    "gan-z2-1-2": (GAN, ADAMW, (1, 2), (2, 2)),
    "vae-sgd-z3-2-1": (VAE, SGD, (2, 3), (1, 3)),
    "vae-rmsprop-z2-2-4": (VAE, RMSPROP, (2, 2), (4, 2)),
    "vae-rmsprop-z0-1-2": (VAE, RMSPROP, (1, 0), (2, 0)),
    "vae-plateau-z1-2-1": (VAE, ADAMW, (2, 1), (1, 1), PLATEAU),
    "vae-thaw-z2-1-2": (VAE, ADAMW, (1, 2), (2, 2), THAW),
    "vae-thaw-z0-2-1": (VAE, ADAMW, (2, 0), (1, 0), THAW),
    "gan-ada-z1-2-1": (ADA, ADAMW, (2, 1), (1, 1)),
    "gan-ada-z0-1-2": (ADA, ADAMW, (1, 0), (2, 0)),
    "language-z0-z3": (LANGUAGE, ADAMW, (2, 0), (2, 3)),
    "language-z3-z1-2-4": (LANGUAGE, ADAMW, (2, 3), (4, 1)),
    "language-z2-z0-2-1": (LANGUAGE, ADAMW, (2, 2), (1, 0)),
}


def spec(name: str, workers: int, stage: int) -> dict[str, Any]:
    family, optimizer, _, _, *more = CASES[name]
    return {
        **family,
        "training": {
            "steps": STEPS,
            "batch": {"global": 8, "micro": 2},  # batch norm sees micro-batches: the same ones, whoever computes them
            "optimizers": {"default": optimizer},
            "schedule": {"name": "cosine", "warmupSteps": 2},
            "gradientClipping": 1.0,
            "ema": {"decay": 0.9},
            **(more[0] if more else {}),
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STOP}, "keep": {"last": 3}},
        "evaluation": {"samples": 1, "everySteps": 1 if "plateau" in name else STEPS},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    twins: dict[str, str] = {}  # whoever begins with the same job is trained and stopped once, and then goes to different places
    for workers in (1, 2):
        arguments = []
        for name, (_, _, before, *_) in CASES.items():
            if before[0] == workers:
                twin = twins.setdefault(json.dumps(spec(name, *before)), name)
                if twin == name:
                    arguments.append(str(group.prepare(root / f"{name}-undisturbed", spec(name, *before))))
                    arguments.append(f"{group.prepare(root / name, spec(name, *before))}={STOP}")
        group.run_group(workers, arguments, root)
    for name, (_, _, before, *_) in CASES.items():
        twin = twins[json.dumps(spec(name, *before))]
        if twin != name:
            (root / f"{name}-undisturbed").symlink_to(root / f"{twin}-undisturbed")
            shutil.copytree(root / twin, root / name)
    for workers in (1, 2, 4):
        arguments = []
        for name, (_, _, _, after, *_) in CASES.items():
            if after[0] == workers:
                arguments.append(str(group.prepare(root / name, spec(name, *after))))
        group.run_group(workers, arguments, root, timeout=1800)
    return root


@pytest.mark.parametrize("case", CASES)
def test_the_losses_are_those_of_a_run_that_nobody_stopped(case: str, root: Path) -> None:
    for name in ("loss/D", "loss/G") if case.startswith("gan") else ("loss",):
        expected, ours = group.losses(root / f"{case}-undisturbed", name), group.losses(root / case, name)
        assert len(expected) == STEPS
        assert ours == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_so_are_weights_and_moving_average(case: str, root: Path) -> None:
    networks = ("generator", "discriminator") if case.startswith("gan") else ("autoencoder",) if case.startswith("vae") else ("model",)
    for network in networks:
        for kind in ("fp32", "ema") if network != "discriminator" else ("fp32",):
            expected, ours = group.weights(root / f"{case}-undisturbed", network, kind), group.weights(root / case, network, kind)
            assert expected.keys() == ours.keys()
            for key in expected:
                torch.testing.assert_close(ours[key], expected[key], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_canary_it_went_on_where_it_had_stopped(case: str, root: Path) -> None:
    events = [line for line in (root / case / "attempts.jsonl").read_text().splitlines() if '"resumed"' in line]
    assert len(events) == 1
    assert f'"step": {STOP}' in events[0]
    before, after = CASES[case][2:4]
    assert f"the checkpoint is of {before[0]}, stage {before[1]}" in events[0]
    assert f"{after[0]} worker" in events[0]
    assert f"ZeRO stage {after[1]};" in events[0]


def test_what_adapts_was_amid_its_course(root: Path) -> None:
    """A rate that has been cut behind the stop, weights that thawed behind it, a p that rises behind it by signs of before, too."""
    rates = group.losses(root / "vae-plateau-z1-2-1", "lr/autoencoder")
    assert rates == group.losses(root / "vae-plateau-z1-2-1-undisturbed", "lr/autoencoder")
    assert rates[STOP - 1] == rates[0] > rates[-1]
    for case in ("gan-ada-z1-2-1", "gan-ada-z0-1-2"):
        strength = group.losses(root / case, "augment/p")
        assert strength == group.losses(root / f"{case}-undisturbed", "augment/p")
        assert strength[STOP] == 0 < strength[-1] < 1
