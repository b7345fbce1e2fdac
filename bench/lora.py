"""Samples per second of low-rank changes of a pipeline, against a loop as diffusers' train_text_to_image_lora.py has it.

`python -m bench.lora PAIRS` measures as `bench/training.py` does, and prints JSON. Both have the same random pipeline in the form of Stable
Diffusion, the same layers changed by peft at rank 4, the same captioned pictures as PNG files, batch, fp32, AdamW with a clipped gradient.
The peer shares nothing with the trainer: a DataLoader that decodes and tokenises within the step, as the script's does by default, the
autoencoder and the text encoder at every step, diffusers' scheduler, and the loss read at every step.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.ratios import ratio

SIZE, WIDTH, COUNT, BATCH, STEPS, RATE, SEED = 32, 64, 256, 8, 40, 1e-4, 0
LAYERS = ["to_k", "to_q", "to_v", "to_out.0"]


def manifest(base: Path, pictures: Path) -> dict[str, Any]:
    optimizer = {"name": "adamw", "learningRate": RATE, "weightDecay": 0.01}
    spec = {
        "diffusion": {
            "pretrained": {"source": f"file://{base}"},
            "adapt": {"type": "lora", "lora": {"rank": 4, "targetModules": LAYERS}},
            "conditioning": {"type": "text"},
            "sampler": {"steps": 1},
        },
        "data": {"source": f"file://{pictures}", "images": {"size": SIZE}, "holdout": 0},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH},
            "seed": SEED,
            "gradientClipping": 1.0,
            "optimizers": {"default": optimizer},
        },
        "deepspeed": {"stage": 0},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STEPS}},
        "evaluation": {"everySteps": STEPS, "samples": 1},
    }
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "bench-lora"}, "spec": spec}


def written(folder: Path) -> tuple[Path, Path]:
    """A pipeline and a folder of captioned pictures."""
    import torch
    from PIL import Image

    from tests.models.pipelines import saved
    from trainjobs.data import shapes

    base, pictures = saved(folder / "base", width=WIDTH), folder / "pictures"
    pictures.mkdir()
    images, captions = shapes.draw(torch.arange(COUNT), SIZE), shapes.captions(3)
    for number, image in enumerate(images):
        pixels = (image * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(pictures / f"{number:03d}.png")
        (pictures / f"{number:03d}.txt").write_text(captions[number])
    return base, pictures


def peer(base: Path, pictures: Path) -> tuple[float, float]:
    """The script's loop; Elapsed of all steps but the first ten."""
    import numpy as np
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.optimization import get_scheduler
    from peft import LoraConfig
    from PIL import Image
    from torch.nn import functional as F
    from torch.utils.data import DataLoader

    from bench.plain_loops import WARM

    torch.manual_seed(SEED)
    parts = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    unet, vae, encoder, scheduler, tokenizer = parts.unet, parts.vae, parts.text_encoder, parts.scheduler, parts.tokenizer
    for part in (unet, vae, encoder):
        part.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=LAYERS))
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    warmed = get_scheduler("constant", optimizer=optimizer)

    def told(number: int) -> dict[str, Any]:
        path = pictures / f"{number:03d}.png"
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 127.5 - 1.0
        words = tokenizer(path.with_suffix(".txt").read_text(), padding="max_length", truncation=True, return_tensors="pt")
        return {"pixel_values": pixels, "input_ids": words.input_ids[0]}

    def batches() -> Iterator[dict[str, Any]]:
        while True:
            yield from DataLoader(list(range(COUNT)), BATCH, shuffle=True, drop_last=True, collate_fn=collated)

    def collated(numbers: list[int]) -> dict[str, Any]:
        rows = [told(number) for number in numbers]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    unet.train()
    stream, total, began = batches(), 0.0, (0.0, 0.0)
    for step in range(STEPS):
        if step == WARM:
            began = time.perf_counter(), time.process_time()
        batch = next(stream)
        latents = vae.encode(batch["pixel_values"]).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),))
        noisy = scheduler.add_noise(latents, noise, timesteps)
        hidden = encoder(batch["input_ids"], return_dict=False)[0]
        predicted = unet(noisy, timesteps, hidden, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), noise.float())
        total += loss.item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        warmed.step()
        optimizer.zero_grad()
    assert total > 0
    return time.perf_counter() - began[0], time.process_time() - began[1]


def measure(pairs: int) -> list[dict[str, float]]:
    """As bench/training.py's."""
    import torch.distributed as dist

    from bench.plain_loops import WARM
    from bench.training import trained, turns
    from trainjobs.api.job import Job
    from trainjobs.engine.memory import keep_freed_memory

    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        base, pictures = written(folder)
        job = Job.model_validate(manifest(base, pictures))

        def ours(turn: int) -> tuple[float, float]:
            run = folder / f"run-{turn}"
            run.mkdir()
            wall, processor = trained(job, run)
            return wall, processor

        results = turns(ours, lambda turn: peer(base, pictures), (STEPS - WARM) * BATCH, pairs)
        dist.destroy_process_group()
    return results


def section(result: dict[str, Any] | None) -> list[str]:
    """Of docs/benchmarks.md."""
    lines = [
        "## Low-rank changes of a pipeline",
        "",
        "Against a loop as diffusers' own script of it for captioned pictures has it (`bench/lora.py`): the same random pipeline",
        f"in the form of Stable Diffusion, rank 4, {BATCH} pictures of {SIZE} pixels, fp32, one process, one thread. Goal: at least 0.97.",
        "",
    ]
    if result is None:
        return [*lines, "Not measured.", ""]
    pairs = result["pairs"]
    wall, processor = ([pair[f"ours{of}"] / pair[f"plain{of}"] for pair in pairs] for of in ("", "_processor"))
    ours, plain = (median(pair[side] for pair in pairs) / BATCH for side in ("ours", "plain"))
    lines += [
        "| ours / diffusers' loop | by processor time | ours, steps/s | its, steps/s | pairs |",
        "| --- | --- | --- | --- | --- |",
    ]
    return [*lines, f"| {ratio(wall)} | {ratio(processor)} | {ours:.2f} | {plain:.2f} | {len(pairs)} |", ""]


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    print(json.dumps(measure(int(sys.argv[1]))))
