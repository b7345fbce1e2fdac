"""A plain torch loop that fine-tunes a pipeline, as diffusers' training scripts do it: their schedulers, their networks, peft's layers.
First weights, prompts' numbers and noise are the job's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from plain import draw
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.job import Job, Spec
from trainjobs.data import open_source
from trainjobs.data.places.place import ALONE
from trainjobs.data.pretrained import of_job
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build
from trainjobs.objectives.diffusion.texts import OBJECT

PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")


def train(manifest: dict[str, Any], base: Path, run: Path) -> dict[str, Tensor]:
    """What is trained, by its names in a checkpoint, after all steps; whole batches at once. `run` has the pictures of a class."""
    spec = Job.model_validate(manifest).spec
    assert spec.diffusion is not None
    adapt = spec.diffusion.adapted
    source = open_source(spec, run / "cache")
    torch.manual_seed(mix(spec.training.seed, "weights"))
    ours = build(spec, source.info, of_job(spec, run / "cache", ALONE)).modules["denoiser"]
    first = {name: p.detach().clone() for name, p in ours.named_parameters() if p.requires_grad}
    pipe = loaded(base)
    trained = adapted(pipe, spec, first)
    assert trained.keys() == first.keys()
    settings = spec.training.optimizers["default"]
    chosen = torch.optim.SGD(list(trained.values()), lr=settings.learning_rate, momentum=settings.momentum)
    batch = spec.training.batch.global_
    classes = pictures(run / "cache" / "class-images") if adapt.dreambooth else None
    for step in range(spec.training.steps):
        data, noise = draw(spec, source, step, "train.0", step * batch, batch, "cpu")
        texts = texts_of(spec, data, noise)
        errors = errors_of(pipe, spec, data["image"], texts, noise, "")
        loss = errors.mean()
        if classes is not None:
            assert adapt.dreambooth is not None
            rows = classes[noise.samples % len(classes)]
            other = errors_of(pipe, spec, rows, [adapt.dreambooth.class_prompt] * batch, noise, "class.")
            loss = loss + adapt.dreambooth.prior_loss_weight * other.mean()
        chosen.zero_grad()
        loss.backward()
        chosen.step()
    moved = {name for name, parameter in trained.items() if not torch.equal(parameter, first[name])}
    assert moved >= {name for name in first if ("lora_B" in name or "rows" in name) and trained[name].grad is not None}
    assert moved
    return {name: parameter.detach() for name, parameter in trained.items()}


def loaded(base: Path) -> Any:
    from diffusers import DiffusionPipeline

    without = (base / "transformer").exists() and not (base / "text_encoder_3").exists()
    pipe = DiffusionPipeline.from_pretrained(base, **({"text_encoder_3": None, "tokenizer_3": None} if without else {}))
    for part in (*PARTS, "vae"):
        if getattr(pipe, part, None) is not None:
            getattr(pipe, part).requires_grad_(False).eval()
    return pipe


def adapted(pipe: Any, spec: Spec, first: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    """Have trained what the job trains, beginning as it does."""
    from peft import LoraConfig

    assert spec.diffusion is not None
    adapt = spec.diffusion.adapted
    encoders = [part for part in PARTS[2:] if getattr(pipe, part, None) is not None]
    denoiser = "unet" if hasattr(pipe, "unet") else "transformer"
    parts = [denoiser, *(encoders if adapt.text_encoder else [])]
    if adapt.type == "textual-inversion":
        return words(pipe, encoders, first)
    for part in parts:
        network = getattr(pipe, part)
        if adapt.type == "full":
            network.requires_grad_(True)
            continue
        lora = adapt.lora
        names = ["to_k", "to_q", "to_v", "to_out.0"] if part == denoiser else ["q_proj", "k_proj", "v_proj", "out_proj"]
        network.add_adapter(
            LoraConfig(
                r=lora.rank, lora_alpha=lora.alpha or lora.rank, use_dora=lora.use_dora, target_modules=names, init_lora_weights="gaussian"
            )
        )
    found = {f"{part}.{name}": p for part in parts for name, p in getattr(pipe, part).named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in found.items():
            parameter.copy_(first[name])
    return found


def words(pipe: Any, encoders: list[str], first: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    """As diffusers' script begins: tokens are added, the embedding is enlarged. What is behind is trained, as a tensor of its own."""
    found = {}
    for part, name in zip(encoders, sorted(first), strict=True):
        tokenizer, encoder = getattr(pipe, part.replace("text_encoder", "tokenizer")), getattr(pipe, part)
        tokenizer.add_tokens(["<toy>", "<toy>_1"])
        (start,) = tokenizer("toy", add_special_tokens=False).input_ids
        table = encoder.encoder.embed_tokens if part == "text_encoder_3" else encoder.get_input_embeddings()
        rows = nn.Parameter(table.weight[[start, start]].detach().clone())
        assert torch.equal(rows, first[name])
        known = table.weight.detach()

        def look(ids: Tensor, known: Tensor = known, rows: Tensor = rows) -> Tensor:
            return F.embedding(ids, torch.cat([known, rows]))

        table.forward = look
        found[name] = rows
    return found


def texts_of(spec: Spec, data: dict[str, Tensor], noise: Noise) -> list[str]:
    assert spec.diffusion is not None
    adapt, count = spec.diffusion.adapted, len(data["image"])
    if adapt.dreambooth:
        return [adapt.dreambooth.instance_prompt] * count
    if adapt.textual_inversion:
        numbers = noise.integers("template", len(OBJECT), 1)[:, 0].tolist()
        return [OBJECT[number].format("<toy>") for number in numbers]
    told = [bytes(token for token in row if token < 256).decode() for row in data["caption"].tolist()]
    if spec.diffusion.conditioning:
        kept = noise.uniform("condition", 1)[:, 0] >= spec.diffusion.conditioning.dropout
        told = [text if keep else "" for text, keep in zip(told, kept, strict=True)]
    return told


def pictures(folder: Path) -> Tensor:
    files = sorted(folder.glob("*/*.png"))
    return torch.stack([torch.from_numpy(np.asarray(Image.open(file))).permute(2, 0, 1) for file in files]).float() / 127.5 - 1.0


def embedded(pipe: Any, texts: list[str]) -> tuple[Tensor, Tensor | None]:
    """By the pipelines' own encode_prompt, whose gradient reaches the text encoders; no prompt at all is XL's zeros."""
    kind = type(pipe).__name__
    if kind == "StableDiffusionPipeline":
        return pipe.encode_prompt(texts, "cpu", 1, False)[0], None
    if kind == "StableDiffusion3Pipeline":
        texts = [text.replace("<toy>", "<toy> <toy>_1") for text in texts]  # this pipeline alone does not do it itself
        told, _, pooled, _ = pipe.encode_prompt(texts, texts, texts, do_classifier_free_guidance=False)
        return told, pooled
    told, _, pooled, _ = pipe.encode_prompt(texts, device="cpu", do_classifier_free_guidance=False)
    empty = torch.tensor([text == "" for text in texts])
    return told.masked_fill(empty[:, None, None], 0.0), pooled.masked_fill(empty[:, None], 0.0)


def errors_of(pipe: Any, spec: Spec, x: Tensor, texts: list[str], noise: Noise, name: str) -> Tensor:
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    assert spec.diffusion is not None
    told, pooled = embedded(pipe, texts)
    with torch.no_grad():
        posterior = pipe.vae.encode(x).latent_dist
    z = posterior.mean + posterior.std * noise.normal(f"{name}posterior", *posterior.mean.shape[1:])
    z = (z - (pipe.vae.config.shift_factor or 0.0)) * pipe.vae.config.scaling_factor
    eps = noise.normal(f"{name}epsilon", *z.shape[1:])
    if hasattr(pipe, "transformer"):
        u = noise.uniform(f"{name}t", 1)[:, 0]
        t = 3.0 * u / (1.0 + 2.0 * u)  # the scheduler's shift
        sigma = t[:, None, None, None]
        predicted = pipe.transformer((1.0 - sigma) * z + sigma * eps, told, pooled, 1000 * t).sample
        return (predicted - (eps - z)).square()
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    t = noise.integers(f"{name}t", 1000, 1)[:, 0]
    more = {}
    if pooled is not None:
        size = float(x.shape[-1])
        more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.tensor([[size, size, 0.0, 0.0, size, size]] * len(x))}
    predicted = pipe.unet(scheduler.add_noise(z, eps, t), t, told, **more).sample
    v = scheduler.config.prediction_type == "v_prediction"
    errors = (predicted - (scheduler.get_velocity(z, eps, t) if v else eps)).square()
    gamma = spec.diffusion.process.min_snr_gamma
    if gamma is None:
        return errors
    snr = compute_snr(scheduler, t)
    return errors * (snr.clamp(max=gamma) / (snr + 1.0 if v else snr))[:, None, None, None]
