"""DreamBooth's pictures of the class, drawn by the pipeline as it begins, before anything of it is trained.

Picture n is a pure function of the pipeline, the prompt, the sampler, the seed and n, whoever draws it: the ranks share pieces of a fixed
size, so that each number is drawn among the same others. Every picture is a PNG in a folder whose name is a digest of all that; what lies
there is not drawn again, so a start that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.captions import LONGEST, tokens
from trainjobs.noise import Noise, mix
from trainjobs.objectives.batches import inference
from trainjobs.objectives.diffusion.pipeline import LOGVAR, MEAN, PipelineObjective
from trainjobs.objectives.phase import Batch
from trainjobs.world import World, outcome, settled

if TYPE_CHECKING:
    from trainjobs.data.pretrained import Pretrained

FOLDER = "class-images"
PIECE = 4  # drawn together


def draw(objective: PipelineObjective, spec: Spec, base: Pretrained, world: World, folder: Path, tell: Callable[[str], None]) -> None:
    """Give the objective latents of the pictures, mean and log-variance, on the CPU: the same on every rank. Nothing happens without
    DreamBooth, or where its prior has no weight. Every rank must call it. JobError GTJ0114 when they cannot be written, on every rank."""
    family = objective.family
    wanted = family.adapted.dreambooth
    if wanted is None or wanted.prior_loss_weight == 0:
        return
    place = folder / key(spec, base)
    seed = mix(spec.training.seed, FOLDER)
    modules = {"denoiser": objective.network, "vae": objective.vae}
    for module in modules.values():
        module.to(world.device)
    pieces = [range(start, min(start + PIECE, wanted.class_images)) for start in range(0, wanted.class_images, PIECE)]
    mine = pieces[world.rank :: world.size]

    def make() -> dict[int, bytes]:
        place.mkdir(parents=True, exist_ok=True)
        found: dict[int, bytes] = {}
        for turn, piece in enumerate(mine):
            if any(not path(place, number).exists() for number in piece):
                tell(f"drawing pictures of the class, {turn * PIECE * world.size} of {wanted.class_images}")
                for number, picture in zip(piece, _drawn(objective, seed, piece, wanted.class_prompt, world.device), strict=True):
                    _write(path(place, number), picture)
            found |= {number: path(place, number).read_bytes() for number in piece}
        return found

    # No autocast: they are the pipeline's own, whatever the run's precision.
    with inference(modules, torch.autocast(world.device.type, enabled=False)):
        shares = [settled(one) for one in world.gather(outcome(_told, make, place))]
        every = {number: data for share in shares for number, data in share.items()}
        encoded = [_encoded(objective, [every[number] for number in piece], world.device) for piece in pieces]
    objective.classes = (torch.cat([mean for mean, _ in encoded]), torch.cat([logvar for _, logvar in encoded]))


def key(spec: Spec, base: Pretrained) -> str:
    """The name of the folder: of all that pictures follow from."""
    assert spec.diffusion is not None
    wanted = spec.diffusion.adapted.dreambooth
    assert wanted is not None
    told: list[Any] = [base.digest, wanted.class_prompt, spec.training.seed, spec.data.images.size, spec.training.precision]
    told.append(spec.diffusion.sampler.model_dump(mode="json"))
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def path(place: Path, number: int) -> Path:
    return place / f"{number:05d}.png"


def _told(make: Callable[[], dict[int, bytes]], place: Path) -> dict[int, bytes]:
    try:
        return make()
    except OSError as error:
        why, how = error.strerror or str(error), "free space there, or choose another run folder"
        raise JobError("GTJ0114", "the pictures of the class cannot be written", where=str(place), why=why, how=how) from error


def _drawn(objective: PipelineObjective, seed: int, numbers: range, prompt: str, device: torch.device) -> list[Image.Image]:
    rows = torch.tensor(list(numbers), device=device)
    caption = torch.from_numpy(tokens([prompt] * len(rows), LONGEST, [prompt] * len(rows))).to(device)
    made = objective.sample(Batch({"caption": caption}, Noise(seed, rows), len(rows))).images
    assert made is not None
    pixels = ((made + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in pixels]


def _write(to: Path, picture: Image.Image) -> None:
    partial = to.with_name(f"{to.name}.{os.getpid()}.partial")
    picture.save(partial, format="PNG")
    partial.replace(to)


def _encoded(objective: PipelineObjective, files: list[bytes], device: torch.device) -> tuple[Tensor, Tensor]:
    import numpy as np

    pixels = [np.asarray(Image.open(BytesIO(data)).convert("RGB")).transpose(2, 0, 1) for data in files]
    x = torch.from_numpy(np.stack(pixels)).to(device).float() / 127.5 - 1.0
    found = objective.encode({"image": x})
    return found[MEAN].cpu(), found[LOGVAR].cpu()
