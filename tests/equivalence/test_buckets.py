"""Pictures of several shapes are learned as a plain loop over diffusers' scheduler learns them, micro-batch by micro-batch, at any number
of workers and accumulation; a run that was stopped amid an epoch goes on as if nothing had happened, on as many workers and on others; and
kept latents are those that are encoded anew, to the last bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

import group
import latent
import plain

pytestmark = pytest.mark.slow

STEPS, STOP, BATCH, MICRO = 10, 4, 4, 2  # 40 samples, two epochs; 16 are none
UNET = {"channels": 8, "multipliers": [1, 2]}
DIT = {"architecture": "dit", "hidden": 16, "layers": 1, "heads": 2, "patch": 4}
# name: (network, stage, workers, with latents: kept or anew)
CASES: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "unet-1": (UNET, 0, 1, ""),
    "unet-2": (UNET, 2, 2, ""),
    "dit-1": (DIT, 0, 1, ""),
    "dit-2": (DIT, 3, 2, ""),
    "kept-1": (UNET, 0, 1, "kept"),
    "anew-1": (UNET, 0, 1, "anew"),
    "kept-2": (UNET, 1, 2, "kept"),
}
STOPPED = {"unet-1-1": ("unet-1", 1), "unet-1-2": ("unet-1", 2), "kept-2-1": ("kept-2", 1)}  # goes on with so many workers


def pictures(folder: Path) -> Path:
    """Ten squares, seven three times as wide as high, and three upright ones, of as many greys."""
    folder.mkdir()
    for number in range(20):
        size = (24, 24) if number < 10 else (48, 16) if number < 17 else (10, 40)
        Image.linear_gradient("L").rotate(90 * (number % 4)).resize(size).point(lambda v, n=number: (v + 40 * n) % 256).save(
            folder / f"{number}.png"
        )
    return folder


def spec(name: str, root: Path, workers: int | None = None) -> dict[str, Any]:
    network, stage, size, latents = CASES[name]
    workers = workers or size
    of = {"latents": {"autoencoder": f"file://{root}/whole", "cache": latents == "kept"}} if latents else {}
    return {
        "diffusion": {
            "network": network,
            "process": {"prediction": "v", "schedule": "scaled-linear" if latents else "cosine"},
            "sampler": {"steps": 2},
            **of,
        },
        "data": {
            "source": f"file://{root}/pictures",
            "images": {"size": 16, "channels": 1, "augment": ["horizontalFlip"], "buckets": {"step": 8}},
            "holdout": 0.0,
        },
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": MICRO},
            "optimizers": {"default": {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STEPS}},
        "evaluation": {"samples": 2, "everySteps": STEPS},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("buckets")
    latent.tiny(root / "whole")
    pictures(root / "pictures")
    for workers in (1, 2):
        whole = [str(group.prepare(root / name, spec(name, root))) for name in CASES if CASES[name][2] == workers]
        begun = [f"{group.prepare(root / name, spec(of, root))}={STOP}" for name, (of, _) in STOPPED.items() if CASES[of][2] == workers]
        group.run_group(workers, whole + begun, root)
    for workers in (1, 2):
        again = [str(group.prepare(root / name, spec(of, root, workers))) for name, (of, after) in STOPPED.items() if after == workers]
        group.run_group(workers, again, root)
    return root


def differs(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_a_plain_loop_learns_the_same_of_the_same_shapes(name: str, root: Path) -> None:
    """Data are read by hand here: which files belong to a shape, and how they are scaled and cropped."""
    import numpy as np
    from PIL import ImageOps

    from trainjobs.api.job import Job
    from trainjobs.data import open_source
    from trainjobs.noise import Noise, mix
    from trainjobs.objectives.build import build

    told = Job.model_validate(group.job(spec(f"{name}-1", root))).spec
    source: Any = open_source(told, root / "plain")
    torch.manual_seed(mix(0, "weights"))
    network = build(told, source.info).modules["denoiser"]
    chosen, shapes, losses = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9), set(), []
    for step in range(STEPS):
        chosen.zero_grad()
        both = []
        for start in range(step * BATCH, (step + 1) * BATCH, MICRO):
            samples = torch.arange(start, start + MICRO)
            noise = Noise.of(0, step, "train.0", samples)
            rows = []
            for where in source.names(source.numbers(samples, 0), held=False):
                with Image.open(root / "pictures" / Path(where).name) as image:
                    size = {24: (16, 16), 48: (24, 8), 10: (8, 32)}[image.width]
                    rows.append(np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS)))
            x = torch.from_numpy(np.stack(rows))[:, None] / 127.5 - 1.0
            x = torch.where(noise.uniform("horizontalFlip")[:, None, None, None] < 0.5, x.flip(-1), x)
            shapes.add(tuple(x.shape[2:]))
            loss = plain.diffusion_loss(told, network, {"image": x}, noise)
            (loss / 2).backward()
            both.append(loss.item())
        losses.append(sum(both) / 2)
        chosen.step()
    assert shapes == {(16, 16), (8, 24), (32, 8)}
    for run in (root / f"{name}-1", root / f"{name}-2"):
        difference = differs(group.weights(run, "denoiser"), {key: value.detach() for key, value in network.named_parameters()})
        print(f"{run.name}: {difference:.1e}")
        assert difference <= 1e-6
        assert group.losses(run) == pytest.approx(losses, rel=1e-5)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3]), "it learns"


@pytest.mark.parametrize("name", STOPPED)
def test_a_run_that_was_stopped_amid_an_epoch_goes_on(name: str, root: Path) -> None:
    of, after = STOPPED[name]
    events = [line for line in (root / name / "attempts.jsonl").read_text().splitlines() if '"resumed"' in line]
    assert len(events) == 1
    assert f'"step": {STOP}' in events[0]
    difference = differs(group.weights(root / name, "denoiser"), group.weights(root / of, "denoiser"))
    assert difference == 0 if after == CASES[of][2] else difference <= 1e-6


def test_kept_latents_are_those_encoded_anew(root: Path) -> None:
    assert differs(group.weights(root / "kept-1", "denoiser"), group.weights(root / "anew-1", "denoiser")) == 0
    assert differs(group.weights(root / "kept-2", "denoiser"), group.weights(root / "anew-1", "denoiser")) <= 1e-6
    assert {path.name.split("-")[2] for path in (root / "kept-1" / "cache").glob("latents-*.npy")} == {"16x16", "24x8", "8x32"}


def test_it_is_said_once_what_there_is(root: Path) -> None:
    notes = [line for line in (root / "unet-1-2" / "attempts.jsonl").read_text().splitlines() if "pictures by width x height" in line]
    assert len(notes) == 1
    assert "16x16: 10, 24x8: 7, 8x32: 3; 2 fill no micro-batch of 2 in the first epoch" in notes[0]
