"""Does fine-tuning learn, measured on pictures: a pipeline of about a million weights is trained on the captions of builtin:shapes by plain
torch, and Gentrain teaches it what it was kept from. A quarter of an hour on two cores, so by hand:

    python -m tests.learned_pipelines FOLDER

The base never sees a green triangle. Textual inversion learns a word from five green triangles, beginning as red; LoRA learns green
triangles by their captions. Printed is how far the mean colour of what is drawn is from theirs, and in how many of 24 pictures of other
captions the colour is the one that was asked for.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tests.models.pipelines import encoder, tokenizer, unet
from trainjobs.api.job import Job
from trainjobs.checkpoints import locate
from trainjobs.data import shapes
from trainjobs.export.export import export
from trainjobs.loop import train
from trainjobs.sampling.draw import drawn
from trainjobs.sampling.opened import Opened, opened
from trainjobs.world import World

SIZE, BATCH = 16, 32
HELD = "a green triangle"
PALETTE = dict(zip(shapes.COLOURS, torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1.0]]), strict=True))


def pictures() -> tuple[Tensor, list[str]]:
    """All of builtin:shapes, float [N, 3, SIZE, SIZE] in [-1, 1], and their captions."""
    images = torch.cat([shapes.draw(torch.arange(start, start + 512), SIZE) for start in range(0, shapes.COUNT, 512)])
    return images * 2.0 - 1.0, shapes.captions(3)


def base(folder: Path, vae_steps: int = 250, steps: int = 450) -> None:
    """An autoencoder without downsampling and a denoiser with its text encoder, trained on everything but what is held."""
    from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline

    torch.manual_seed(1)
    images, captions = pictures()
    kept = torch.tensor([number for number, caption in enumerate(captions) if caption != HELD])
    vae = AutoencoderKL(block_out_channels=(16,), latent_channels=4, norm_num_groups=4, layers_per_block=1)
    chosen = torch.optim.Adam(vae.parameters(), 2e-3)
    for _ in range(vae_steps):
        x = images[kept[torch.randint(len(kept), (BATCH,))]]
        posterior = vae.encode(x).latent_dist
        loss = F.mse_loss(vae.decode(posterior.sample()).sample, x) + 1e-6 * posterior.kl().mean()
        chosen.zero_grad()
        loss.backward()
        chosen.step()
    print(f"autoencoder: squared error {loss.item():.4f}", flush=True)
    with torch.no_grad():
        vae.register_to_config(scaling_factor=1.0 / vae.encode(images[:256]).latent_dist.sample().std().item())
    tokens = tokenizer()
    text, network = encoder(tokens, 64), unet(64, 48)
    network.register_to_config(sample_size=SIZE)
    told = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    scheduler = DDPMScheduler(**told, rescale_betas_zero_snr=True)
    print(f"denoiser and text encoder: {sum(p.numel() for m in (network, text) for p in m.parameters()):,} weights", flush=True)
    chosen = torch.optim.AdamW([*network.parameters(), *text.parameters()], 1e-3, weight_decay=0.0)
    began = time.monotonic()
    for step in range(steps):
        for group in chosen.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20)
        rows = kept[torch.randint(len(kept), (BATCH,))].tolist()
        asked = ["" if torch.rand(()) < 0.1 else captions[row] for row in rows]
        ids = tokens(asked, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            z = vae.encode(images[rows]).latent_dist.sample() * vae.config.scaling_factor
        eps, t = torch.randn_like(z), torch.randint(1000, (BATCH,))
        predicted = network(scheduler.add_noise(z, eps, t), t, text(ids).last_hidden_state).sample
        loss = F.mse_loss(predicted, scheduler.get_velocity(z, eps, t))
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        if step % 50 == 0:
            print(f"base, step {step}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)
    sampler = DDIMScheduler(**told, rescale_betas_zero_snr=True, clip_sample=False, timestep_spacing="trailing", steps_offset=1)
    StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokens, unet=network, scheduler=sampler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def job(name: str, root: Path, adapt: dict[str, Any], data: Path, steps: int, rate: float) -> Job:
    spec = {
        "diffusion": {"pretrained": {"source": f"file://{root / 'base'}"}, "adapt": adapt, "sampler": {"steps": 10, "guidance": 2.0}},
        "data": {"source": f"file://{data}", "images": {"size": SIZE}, "holdout": 0},
        "training": {
            "steps": steps,
            "batch": {"global": 16},
            "optimizers": {"default": {"name": "adam", "learningRate": rate}},
        },
        "deepspeed": {"stage": 0},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 1, "prompts": [HELD]},
    }
    told = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": name}, "spec": spec}
    return Job.model_validate(told)


def colour(images: Tensor) -> Tensor:
    """float [N, 3]: of each picture the mean of its brightest tenth, in [0, 1]."""
    flat = (images.flatten(2) + 1.0) / 2.0
    best = flat.amax(dim=1).topk(flat.shape[-1] // 10, dim=-1).indices
    return flat.gather(2, best[:, None].expand(-1, 3, -1)).mean(dim=-1)


def obeyed(found: Opened, asked: list[str]) -> int:
    """In how many pictures the colour nearest to what is drawn is the one that was asked for."""
    images = drawn(found, len(asked), 3, asked, torch.device("cpu")).samples.images
    assert images is not None
    nearest = torch.cdist(colour(images), torch.stack(list(PALETTE.values()))).argmin(dim=1).tolist()
    return sum(shapes.COLOURS[number] in text for number, text in zip(nearest, asked, strict=True))


def measured(name: str, found: Opened, prompt: str, target: Tensor) -> dict[str, Any]:
    images = drawn(found, 12, 3, [prompt], torch.device("cpu")).samples.images
    assert images is not None
    others = [f"a {hue} {kind}" for hue in shapes.COLOURS for kind in ("circle", "square")] * 2
    figures = {
        "what": name,
        "distance": round(float((colour(images).mean(0) - target).norm()), 2),
        "obeyed": f"{obeyed(found, others)} of 24",
    }
    print(json.dumps(figures), flush=True)
    return figures


def exported(run: Path, to: Path) -> Opened:
    checkpoints, commit = locate(f"file://{run / 'checkpoints'}")
    export(checkpoints, commit, to, weights=None, dtype="fp32")
    return opened(to, "here", None, torch.device("cpu"))


def main(root: Path) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    images, captions = pictures()
    held = [number for number, caption in enumerate(captions) if caption == HELD]
    target = colour(images[held[-32:]]).mean(0)
    if not (root / "base").exists():
        base(root / "base")
    for name, count in (("five", 5), ("captioned", 60)):
        (root / name).mkdir(exist_ok=True)
        for number in held[:count]:
            pixels = ((images[number] + 1.0) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(root / name / f"{number}.png")
            if name == "captioned":
                (root / name / f"{number}.txt").write_text(HELD)
    word = {"placeholder": "<new>", "initializer": "red"}
    booth = {"instancePrompt": "a photo of thing triangle", "classPrompt": "a red triangle", "classImages": 16}
    lora = {"type": "lora", "lora": {"rank": 4}}
    cases = {
        "word": ({"type": "textual-inversion", "textualInversion": word}, "five", "a <new>", 75, 0.02),
        "lora": (lora, "captioned", HELD, 75, 2e-3),
        "booth": ({**lora, "dreambooth": booth}, "five", booth["instancePrompt"], 75, 2e-3),
    }
    for name, (adapt, data, prompt, steps, rate) in cases.items():
        for taken in (1, steps):
            if (root / f"{name}-{taken}-export").exists():
                continue
            run = root / f"{name}-{taken}"
            run.mkdir(exist_ok=True)
            train(
                job(name, root, adapt, root / data, taken, rate if taken > 1 else 1e-9), run, World(0, 1, torch.device("cpu")), sync_every=1
            )
            after = "before" if taken == 1 else f"after {steps} steps"
            measured(f"{name}, {after}", exported(run, root / f"{name}-{taken}-export"), str(prompt), target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
