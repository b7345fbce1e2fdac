"""The loop trains: each family through trainjobs.loop.train, in one process, from its manifest to samples and scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent / "equivalence"))

import group

pytestmark = pytest.mark.slow

ADAM = {"name": "adam", "learningRate": 3e-3}
CPU = {"workers": 1, "gpusPerWorker": 0}
DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}


def specs(root: Path) -> dict[str, Any]:
    text = root / "verse.txt"  # 8 sequences of 16 bytes and one more: one batch is all there is to learn
    text.write_text("".join(f"{line}: {line * line} is no prime.\n" for line in range(2, 40))[: 8 * 16])
    ring = yaml.safe_load((group.ROOT / "manifests" / "samples" / "gan-ring.yaml").read_text())["spec"]
    ring["compute"] = CPU
    ring["evaluation"]["everySteps"] = ring["training"]["steps"]
    return {
        "language": {
            "language": {"network": {"layers": 2, "hidden": 64, "heads": 2, "contextLength": 16}},
            "data": {"source": f"file://{text}", "holdout": 0},
            "training": {"steps": 150, "batch": {"global": 8}, "optimizers": {"default": ADAM}, "schedule": {"name": "cosine"}},
            "deepspeed": {"stage": 3},
            "compute": CPU,
            "evaluation": {"samples": 1, "everySteps": 150},
        },
        "vae": {
            "vae": {"network": {"channels": 16, "latentDim": 8}},
            "data": DIGITS,
            "training": {"steps": 200, "batch": {"global": 64}, "optimizers": {"default": ADAM}, "precision": "bf16"},
            "deepspeed": {"stage": 0},
            "compute": CPU,
            "evaluation": {"samples": 1, "everySteps": 200},
        },
        "diffusion": {
            "diffusion": {"network": {"channels": 16}, "sampler": {"steps": 2}},
            "data": DIGITS,
            "training": {"steps": 200, "batch": {"global": 32}, "optimizers": {"default": ADAM}, "ema": {"decay": 0.95}},
            "deepspeed": {"stage": 2},
            "compute": CPU,
            "evaluation": {"samples": 1, "everySteps": 100},
        },
        "slow average": {
            "diffusion": {"network": {"channels": 16}, "sampler": {"steps": 2}},
            "data": DIGITS,
            "training": {"steps": 150, "batch": {"global": 32}, "optimizers": {"default": ADAM}, "ema": {"decay": 0.9999}},
            "compute": CPU,
            "evaluation": {"samples": 1, "everySteps": 150},
        },
        "cold average": {
            "diffusion": {"network": {"channels": 16}, "sampler": {"steps": 2}},
            "data": DIGITS,
            "training": {"steps": 150, "batch": {"global": 32}, "optimizers": {"default": ADAM}, "ema": {"decay": 0.9999, "warmup": False}},
            "compute": CPU,
            "evaluation": {"samples": 1, "everySteps": 150},
        },
        "ring": ring,
        "drawn digits": {
            "gan": {
                "generator": {"latentDim": 16, "channels": 8},
                "discriminator": {"channels": 8, "spectralNorm": True},
                "loss": {"type": "hinge"},
            },
            "data": DIGITS,
            "training": {
                "steps": 150,
                "batch": {"global": 32},
                "optimizers": {"default": {"name": "adam", "learningRate": 1e-3, "betas": [0.0, 0.9]}},
                "ema": {"decay": 0.95},
            },
            "compute": CPU,
            "evaluation": {"samples": 1, "everySteps": 50, "metrics": ["fid"], "fidSamples": 500},
        },
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quality")
    runs = [str(group.prepare(root / name, spec)) for name, spec in specs(root).items()]
    group.run_group(1, runs, root)
    return root


def test_language_model_memorises_a_batch(root: Path) -> None:
    losses = group.losses(root / "language")
    assert losses[0] > 4.0
    assert losses[-1] < 0.05


def test_autoencoder_learns_digits(root: Path) -> None:
    losses = group.losses(root / "vae")
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    (score,) = group.losses(root / "vae", "heldout/loss")
    assert score < 0.5 * losses[0]


def test_an_average_of_a_short_run_is_as_good_as_the_weights(root: Path) -> None:
    """A decay of 0.9999 in 150 steps: without warm-up, nearly all of the average is the random start."""
    (average,), (weights,) = (group.losses(root / "slow average", f"heldout/loss{which}") for which in ("", "/live"))
    assert average < 1.1 * weights
    (cold,), (same,) = (group.losses(root / "cold average", f"heldout/loss{which}") for which in ("", "/live"))
    assert same == weights, "the average changes nothing of what is trained"
    assert cold > 1.5 * same


def test_denoiser_learns_digits(root: Path) -> None:
    """The loss of predicting nothing is 1, the variance of the noise."""
    losses = group.losses(root / "diffusion")
    assert losses[0] > 0.8
    assert sum(losses[-20:]) / 20 < 0.35
    halfway, end = group.losses(root / "diffusion", "heldout/loss")
    assert end < halfway < 0.6


def test_gan_finds_all_modes_of_the_ring(root: Path) -> None:
    assert group.losses(root / "ring", "modes") == [8.0]
    assert group.losses(root / "ring", "modes/quality")[-1] > 0.7


def test_the_distance_of_what_a_gan_draws_falls(root: Path) -> None:
    distances = group.losses(root / "drawn digits", "fid/digits")
    assert len(distances) == 3
    assert distances[0] > 1.2 * distances[1] > 1.2 * 1.2 * distances[2]
