"""A run that was stopped and went on ends, to the last bit, where an undisturbed one does: weights, optimizer, moving average.

The undisturbed run looks at the model and saves only at its end, the other one at every step, so this also says that neither changes
what is trained. The stopped run goes on in new processes.

A language model at every stage in either precision, at every stage on one and two workers, and on either in either precision;
GENTRAIN_ALL_STAGES=1 for all three at once.
"""

from __future__ import annotations

import hashlib
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

import group

from tests.checkpointer import at_once

pytestmark = pytest.mark.slow

STEPS, STOP = 4, 2

ADAMW = {"name": "adamw", "learningRate": 1e-2, "weightDecay": 0.01}
DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1, "augment": ["horizontalFlip"]}}
# Dropout draws from torch's generator; batch norm and spectral norm keep buffers.
LANGUAGE = {
    "language": {"network": {"layers": 1, "hidden": 32, "heads": 2, "contextLength": 16, "dropout": 0.2}},
    "data": {"source": "builtin:stdlib-text"},
}
GAN = {
    "gan": {
        "generator": {"latentDim": 8, "channels": 4},
        "discriminator": {"channels": 4, "spectralNorm": True},
        "loss": {"type": "wgan-gp", "criticSteps": 2},
    },
    "data": DIGITS,
}
DIFFUSION = {"diffusion": {"network": {"channels": 8}, "sampler": {"steps": 2}}, "data": DIGITS}
VAE = {"vae": {"network": {"channels": 4}}, "data": DIGITS}

ALL = {
    **{f"language-z{z}-{p}-w{w}": (LANGUAGE, z, p, w) for z, p, w in product((0, 1, 2, 3), ("fp32", "bf16"), (1, 2))},
    **{f"gan-z{z}-fp32-w{w}": (GAN, z, "fp32", w) for z, w in ((0, 1), (0, 2), (2, 2))},
    "gan-z1-bf16-w2": (GAN, 1, "bf16", 2),
    "diffusion-z2-fp32-w2": (DIFFUSION, 2, "fp32", 2),
    "diffusion-z3-bf16-w1": (DIFFUSION, 3, "bf16", 1),
    "vae-z3-fp32-w2": (VAE, 3, "fp32", 2),
    "vae-z0-bf16-w1": (VAE, 0, "bf16", 1),
}
FEW = {name: case for name, case in ALL.items() if case[0] is not LANGUAGE or (case[1] + (case[2] == "bf16") + case[3]) % 2 == 0}
CASES = ALL if os.environ.get("GENTRAIN_ALL_STAGES") else FEW


def spec(case: str, every: int) -> dict[str, Any]:
    family, stage, precision, workers = ALL[case]
    return {
        **family,
        "training": {
            "steps": STEPS,
            "batch": {"global": 8, "micro": 2},
            "precision": precision,
            "optimizers": {"default": ADAMW},
            "schedule": {"name": "cosine", "warmupSteps": 3},
            "gradientClipping": 1.0,
            "ema": {"decay": 0.9},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": every}, "keep": {"last": 1}},
        "evaluation": {"samples": 1, "everySteps": every},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("resume")
    for workers in (1, 2):
        disturb(root, workers, [name for name, case in CASES.items() if case[3] == workers])
    return root


def disturb(root: Path, workers: int, names: list[str], extra: dict[str, str] | None = None) -> None:
    """Runs these cases, which are of so many workers, and again with a stop in between; `extra` is added to the environment."""
    undisturbed = [str(group.prepare(root / f"{name}-undisturbed", spec(name, STEPS))) for name in names]
    disturbed = [str(group.prepare(root / f"{name}-disturbed", spec(name, 1))) for name in names]
    for run in map(Path, disturbed):
        if "gan" in run.name:  # two networks: these save while they train
            (run / at_once.PROCESS).touch()
    group.run_group(workers, undisturbed + [f"{run}={STOP}" for run in disturbed], root, extra=extra)
    for run in disturbed:
        assert group.last_commit(Path(run)).name.startswith(f"steps/{STOP:012d}".rpartition("/")[2])
    group.run_group(workers, disturbed, root, extra=extra)


def digests(run: Path) -> dict[str, str]:
    """sha256 of every tensor that the last commit holds, by rank, file and key."""
    found: dict[str, str] = {}
    folder = group.last_commit(run)
    for path in sorted(folder.glob("rank-*/*.safetensors")):
        for key, value in load_file(path).items():
            bits = value.contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b""
            found[f"{path.relative_to(folder)} {key}"] = f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(bits).hexdigest()}"
    return found


@pytest.mark.parametrize("case", CASES)
def test_goes_on_to_the_last_bit(case: str, root: Path) -> None:
    same(root, case)


def same(root: Path, case: str) -> None:
    """Both runs of a case left the same tensors."""
    expected, ours = digests(root / f"{case}-undisturbed"), digests(root / f"{case}-disturbed")
    for part in ("fp32/", "exp_avg/", "exp_avg_sq/", "step/", "ema/"):
        assert [name for name in expected if part in name], f"no {part} in the checkpoint"
    assert {name: (expected.get(name), ours.get(name)) for name in expected | ours if expected.get(name) != ours.get(name)} == {}


@pytest.mark.parametrize("case", CASES)
def test_losses_of_both_runs_are_the_same(case: str, root: Path) -> None:
    for name in ("loss/D", "loss/G") if case.startswith("gan") else ("loss",):
        curve = group.losses(root / f"{case}-undisturbed", name)
        assert len(curve) == STEPS
        assert group.losses(root / f"{case}-disturbed", name) == curve
