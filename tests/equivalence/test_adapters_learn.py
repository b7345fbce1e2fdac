"""What is learned beside a frozen base is seen on its pictures, which plain diffusers draws: a small pipeline that draws
red is shown green, and low-rank changes make it draw green."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))

import group

from tests.models.pipelines import pipeline
from trainjobs.checkpoints import locate
from trainjobs.export.export import export

pytestmark = pytest.mark.slow

SIZE, BATCH, STEPS = 8, 8, 100
RED, GREEN = (0.9, 0.1, 0.1), (0.1, 0.9, 0.1)
TOLD = "a photo of a toy"


def pictures(rgb: Tensor) -> Tensor:
    """float [B, 3, SIZE, SIZE] in [-1, 1]: on white a square of each colour [B, 3]."""
    made = torch.ones(len(rgb), 3, SIZE, SIZE)
    made[:, :, 2:6, 2:6] = (2.0 * rgb - 1.0)[:, :, None, None]
    return made


def base() -> Any:
    """A pipeline that plain torch has taught to draw red; its autoencoder knows green, too."""
    made = pipeline("sd", prediction="v_prediction")
    vae, unet, encoder, scheduler = made.vae, made.unet, made.text_encoder, made.scheduler
    rgb = torch.tensor([RED, GREEN])
    ids = made.tokenizer([TOLD] * BATCH, padding="max_length", return_tensors="pt").input_ids
    torch.manual_seed(1)

    def learn(parameters: list[nn.Parameter], rate: float, steps: int, loss: Callable[[], Tensor]) -> None:
        optimizer = torch.optim.Adam(parameters, lr=rate)
        for _ in range(steps):
            loss().backward()
            optimizer.step()
            optimizer.zero_grad()

    def reconstruction() -> Tensor:
        z = vae.encode(pictures(rgb)).latent_dist.mean
        return F.mse_loss(vae.decode(z + 0.05 * torch.randn_like(z)).sample, pictures(rgb))

    learn([*vae.parameters()], 1e-2, 80, reconstruction)
    with torch.no_grad():
        known = vae.encode(pictures(rgb)).latent_dist.mean
    vae.register_to_config(scaling_factor=float(1.0 / known.std()))

    def velocity() -> Tensor:
        z, t = known[:1].expand(BATCH, -1, -1, -1) / known.std(), torch.randint(1000, (BATCH,))
        noise = torch.randn_like(z)
        predicted = unet(scheduler.add_noise(z, noise, t), t, encoder(ids).last_hidden_state).sample
        return F.mse_loss(predicted, scheduler.get_velocity(z, noise, t))

    learn([*unet.parameters(), *encoder.parameters()], 3e-3, 50, velocity)
    return made


def spec(base: Path, data: Path) -> dict[str, Any]:
    return {
        "diffusion": {"pretrained": {"source": f"file://{base}"}, "adapt": {"type": "lora", "lora": {"rank": 4}}, "sampler": {"steps": 1}},
        "data": {"source": f"file://{data}", "images": {"size": SIZE}, "holdout": 0},
        "training": {"steps": STEPS, "batch": {"global": BATCH}, "optimizers": {"default": {"name": "adam", "learningRate": 0.01}}},
        "deepspeed": {"stage": 0},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 1, "everySteps": STEPS},
    }


def distance(pipe: Any) -> float:
    """How far the mean colour of what is drawn is from green, in RGB of [0, 1]."""
    pipe.set_progress_bar_config(disable=True)
    size = {"height": SIZE, "width": SIZE}
    drawn = pipe([TOLD] * 16, **size, num_inference_steps=5, guidance_scale=1.0, generator=torch.manual_seed(3), output_type="pt").images
    return float((drawn[:, :, 2:6, 2:6].mean(dim=(0, 2, 3)) - torch.tensor(GREEN)).norm())


def test_low_rank_changes_learn_a_colour(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    pipe = base()
    pipe.save_pretrained(tmp_path / "base")
    before = distance(pipe)
    assert before > 0.7, "the base draws red"
    (tmp_path / "green").mkdir()
    (green,) = pictures(torch.tensor([GREEN]))
    pixels = ((green + 1.0) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    for number in range(BATCH):
        Image.fromarray(pixels).save(tmp_path / "green" / f"{number}.png")
        (tmp_path / "green" / f"{number}.txt").write_text(TOLD)
    run = group.prepare(tmp_path / "run", spec(tmp_path / "base", tmp_path / "green"))
    group.run_group(1, [str(run)], tmp_path, script="at_once.py")
    checkpoints, commit = locate(f"file://{run}/checkpoints")
    export(checkpoints, commit, tmp_path / "export", weights=None, dtype="fp32")
    pipe.load_lora_weights(tmp_path / "export")
    assert distance(pipe) < 0.4 * before
