"""Runs that must be the same although they are done differently: how the batch is cut, how many workers share it; and GANs' losses
and bf16 at every ZeRO stage.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group
import plain
from test_zero_matrix import ADAMW, FAMILIES, SGD, stages

pytestmark = pytest.mark.slow

STEPS, BATCH = 3, 8

# One global batch of 8: (workers, micro). The first is the reference: all at once, no accumulation.
CUTS = ((1, 8), (1, 1), (1, 2), (2, 4), (2, 1))

# bf16 rounds to 8 bits, each operation by up to 2**-9 of its result. A loss, kept in fp32, averages many such roundings.
BF16 = 2**-8
BF16_STEPS = 8

GAN_LOSSES = {
    "hinge": {"type": "hinge"},
    "bce": {"type": "bce"},
    "wgan-gp": {"type": "wgan-gp", "criticSteps": 2},
}


def spec(
    family: dict[str, Any], *, workers: int, micro: int, stage: int, steps: int = STEPS, precision: str = "fp32", by: Any = SGD
) -> Any:
    return {
        **family,
        "training": {
            "steps": steps,
            "batch": {"global": BATCH, "micro": micro},
            "optimizers": {"default": by},
            "precision": precision,
            "gradientClipping": 0.5,
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 1, "everySteps": steps},
        "checkpoints": {"every": {"steps": steps}},
    }


def spectral(loss: str) -> dict[str, Any]:
    """A GAN with spectral norm. It normalises by a power iteration that every forward pass takes one step further, so such a run depends
    on the number of micro-batches, and is compared without accumulation only."""
    gan = FAMILIES["gan"]["gan"]
    return {**FAMILIES["gan"], "gan": {**gan, "discriminator": {**gan["discriminator"], "spectralNorm": True}, "loss": GAN_LOSSES[loss]}}


def cut_specs() -> dict[str, Any]:
    return {
        f"{family}-w{w}-m{m}": spec(FAMILIES[family], workers=w, micro=m, stage=1 if w == 2 else 0)
        for family, (w, m) in product(FAMILIES, CUTS)
    }


def bf16_specs() -> dict[str, Any]:
    return {
        f"{family}-{precision}-z{stage}": spec(
            FAMILIES[family],
            workers=2,
            micro=2,
            stage=stage,
            steps=BF16_STEPS,
            precision=precision,
            by={"name": "adam", "learningRate": 3e-3},
        )
        for family in ("diffusion", "language", "gan")
        for precision, stage in (("fp32", 0), *(("bf16", stage) for stage in stages(family)))
    }


def gan_specs() -> dict[str, Any]:
    return {
        f"spectral-{loss}-z{stage}": spec(spectral(loss), workers=2, micro=4, stage=stage, by=ADAMW)
        for loss in GAN_LOSSES
        for stage in (0, 1, 2)
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    specs = cut_specs() | bf16_specs() | gan_specs()
    for workers in (1, 2):
        chosen = {name: job for name, job in specs.items() if job["compute"]["workers"] == workers}
        group.run_group(workers, [str(group.prepare(root / name, job)) for name, job in chosen.items()], root)
    return root


def curve(root: Path, name: str) -> list[float]:
    """Losses at every step; of a GAN, those of the discriminator and then the generator's."""
    return [value for metric in ("loss", "loss/D", "loss/G") for value in group.losses(root / name, metric)]


@pytest.mark.parametrize(("family", "cut"), list(product(FAMILIES, CUTS[1:])))
def test_a_batch_may_be_cut_in_any_way(family: str, cut: tuple[int, int], root: Path, tmp_path: Path) -> None:
    name, reference = f"{family}-w{cut[0]}-m{cut[1]}", f"{family}-w1-m{BATCH}"
    assert len(curve(root, reference)) == STEPS * (2 if family == "gan" else 1)
    assert curve(root, name) == pytest.approx(curve(root, reference), rel=1e-6, abs=1e-6)
    for network in {"gan": ("generator", "discriminator"), "vae": ("autoencoder",), "diffusion": ("denoiser",), "language": ("model",)}[
        family
    ]:
        ours, theirs = group.weights(root / name, network), group.weights(root / reference, network)
        for key, value in theirs.items():
            assert (ours[key] - value).abs().max().item() <= 1e-6, f"{network}.{key}"


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_gan_losses_follow_plain_torch_with_spectral_norm(loss: str, root: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    expected = plain.train(group.job(spec(spectral(loss), workers=1, micro=BATCH, stage=0, by=ADAMW)), tmp_path / "cache")
    for stage in (0, 1, 2):
        run = root / f"spectral-{loss}-z{stage}"
        for name, values in expected.losses.items():
            assert group.losses(run, name) == pytest.approx(values, rel=1e-6, abs=1e-6), (stage, name)
        for network, module in expected.networks.items():
            ours = group.weights(run, network)
            for key, value in module.named_parameters():
                assert (ours[key] - value).abs().max().item() <= 1e-6, (stage, network, key)


@pytest.mark.parametrize(("family", "metric"), [("diffusion", "loss"), ("language", "loss"), ("gan", "loss/D")])
def test_bf16_is_the_same_at_every_stage(family: str, metric: str, root: Path) -> None:
    """To bf16's rounding, and so is fp32: the weights that are updated are fp32 everywhere. A GAN amplifies differences, rounding too: two
    of its networks answer each other, so that only the first half of the run is compared with weights that are fp32 altogether."""
    exact = group.losses(root / f"{family}-fp32-z0", metric)
    bound, steps = BF16 * max(exact), BF16_STEPS // 2 if family == "gan" else BF16_STEPS
    curves = {stage: group.losses(root / f"{family}-bf16-z{stage}", metric) for stage in stages(family)}
    for stage, values in curves.items():
        assert len(values) == BF16_STEPS
        assert values == pytest.approx(curves[min(stage, 1)], abs=bound), "from stage 1 on DeepSpeed computes with bf16 weights"
        assert values[:steps] == pytest.approx(curves[0][:steps], abs=bound), stage
        assert values[:steps] == pytest.approx(exact[:steps], abs=bound), stage
        assert values != exact, "that was fp32"


@pytest.mark.parametrize(("family", "stage"), [(family, stage) for family in ("diffusion", "language") for stage in (0, 1, 2, 3)])
def test_bf16_learns(family: str, stage: int, root: Path) -> None:
    values = curve(root, f"{family}-bf16-z{stage}")
    assert len(values) == BF16_STEPS
    assert sum(values[-3:]) < 0.95 * sum(values[:3])
