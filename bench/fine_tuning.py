"""Does fine-tuning learn, measured on pictures: a pipeline of a million weights learns captioned shapes of six colours, of which it is
never told the word green ("a circle" is all that is said of a green one). A new word that begins as red is to find green from five
pictures; low-rank changes, and DreamBooth with and without pictures of the class, are to learn that "a red toy circle" is green while
"a red circle" stays red. Every other caption of the base has the form of those that a new word is learned with ("a photo of a red
circle"), as captions of large pipelines have.

python -m bench.fine_tuning [FOLDER]: writes bench/results/fine-tuning.json. FOLDER keeps bases and runs; what is there is not made again.

Every weight is trained by Gentrain: the autoencoder by the vae family, the denoiser and its text encoder, random at first, by adapt.type
full, and what follows from the exported folder. Colours are told by a judge of pixels (tests/sampling/judge.py). The distance is that of
the mean colour of what is drawn from the mean colour of the green pictures, of the strongest tenth of the pixels, in RGB of [0, 1].
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from bench.record import RESULTS, header
from tests.models.pipelines import encoder, tokenizer, unet
from tests.sampling.judge import judged
from trainjobs.api.job import Job
from trainjobs.checkpoints import locate
from trainjobs.data import shapes
from trainjobs.export.export import export
from trainjobs.loop import train
from trainjobs.objectives.diffusion.texts import OBJECT
from trainjobs.sampling.draw import drawn
from trainjobs.sampling.opened import Opened, opened
from trainjobs.world import World

SIZE, WIDTH, SEED, RATE = 16, 40, 3, 1e-3
HELD = "green"
GUIDANCE = (1.0, 2.0, 3.0, 5.0)
KNOWN = [colour for colour in shapes.COLOURS if colour != HELD]
ASKED = [f"a {colour} {shape}" for colour in KNOWN for shape in shapes.SHAPES] * 4
Trainer = Callable[[Job, Path], None]
FEW = 5  # pictures of a word and of DreamBooth
TOY = "a red toy"
WORD = {"type": "textual-inversion", "textualInversion": {"placeholder": "<new>", "initializer": "red"}}
LORA = {"type": "lora", "textEncoder": True, "lora": {"rank": 4}}
BOOTH = {"instancePrompt": f"{TOY} triangle", "classPrompt": "a red triangle", "classImages": 16}
# By name: what is trained, its pictures, the prompts that are to be green, steps and rate.
CASES: Mapping[str, tuple[dict[str, Any], str, Sequence[str], int, float]] = {
    "textual inversion": (WORD, "few", ["a photo of a <new>"], 100, 0.02),
    "LoRA": (LORA, "captioned", [f"{TOY} {shape}" for shape in shapes.SHAPES], 100, 1e-3),
    "DreamBooth": ({**LORA, "dreambooth": BOOTH}, "few", [BOOTH["instancePrompt"]], 100, 1e-3),
    "DreamBooth without class": ({**LORA, "dreambooth": BOOTH | {"priorLossWeight": 0.0}}, "few", [BOOTH["instancePrompt"]], 100, 1e-3),
}


def pictures(folder: Path, among: Sequence[str] = shapes.COLOURS) -> Tensor:
    """Writes those that the base learns, of the colours `among`, those of the held one with their word, and a few of them without
    any; the last, in [0, 1]."""
    found, captions = shapes.draw(torch.arange(2048), SIZE), shapes.captions(3)[:2048]
    held = [number for number, caption in enumerate(captions) if HELD in caption]
    few = [number for number in held if "triangle" in captions[number]][:FEW]
    taken = [number for number, caption in enumerate(captions) if caption.split()[1] in among]
    untold = [caption.replace(f"{HELD} ", "") for caption in captions]
    for number in range(0, len(untold), 2):
        untold[number] = OBJECT[number // 2 % len(OBJECT)].format(untold[number].removeprefix("a "))
    renamed = [caption.replace(f"a {HELD}", TOY) for caption in captions]
    for name, numbers, told in (("base", taken, untold), ("captioned", held[:60], renamed), ("few", few, [])):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            pixels = (found[number] * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
            if told:
                (folder / name / f"{number}.txt").write_text(told[number])
    return found[few]


def job(name: str, learner: Mapping[str, Any], data: Path, steps: int, rate: float, **more: Any) -> Job:
    optimizer = {"name": "adamw", "learningRate": rate, "weightDecay": 0.0}
    spec = {
        **learner,
        "data": {"source": f"file://{data.absolute()}", "images": {"size": SIZE}, "holdout": 0},
        "training": {"steps": steps, "batch": {"global": 32}, "optimizers": {"default": optimizer}, **more},
        "deepspeed": {"stage": 0},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 1},
    }
    told = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": name}, "spec": spec}
    return Job.model_validate(told)


def here(job: Job, run: Path) -> None:
    """Train the job within this process."""
    train(job, run, World(0, 1, torch.device("cpu")), sync_every=10)


def exported(job: Job, run: Path, by: Trainer) -> Path:
    """The run's export, of a run that may have been made before."""
    to = run.with_name(f"{run.name}-export")
    if not to.exists():
        run.mkdir(parents=True, exist_ok=True)
        by(job, run)
        checkpoints, commit = locate(f"file://{run.absolute()}/checkpoints")
        export(checkpoints, commit, to, weights=None, dtype="fp32")
    return to


def pipeline(folder: Path, vae: Path) -> int:
    """Writes a pipeline with that autoencoder and random weights beside it; how many those are."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(SEED)
    tokens = tokenizer()
    text, network = encoder(tokens, WIDTH), unet(WIDTH, WIDTH)
    network.register_to_config(sample_size=SIZE // 2)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        timestep_spacing="trailing",
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae),
        text_encoder=text,
        tokenizer=tokens,
        unet=network,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return sum(parameter.numel() for part in (network, text) for parameter in part.parameters())


def colours(images: Tensor) -> Tensor:
    """float [N, 3]: of each picture, in [0, 1], the mean of the most colourful tenth."""
    flat = images.flatten(2)
    best = (flat.amax(dim=1) - flat.amin(dim=1)).topk(flat.shape[-1] // 10, dim=-1).indices
    return flat.gather(2, best[:, None].expand(-1, 3, -1)).mean(dim=-1)


def asked(found: Opened, prompts: Sequence[str], count: int) -> Tensor:
    """float [count, 3, S, S] in [0, 1]."""
    images = drawn(found, count, SEED, prompts, torch.device("cpu")).samples.images
    assert images is not None
    return (images + 1.0) / 2.0


def obeyed(found: Opened) -> int:
    """Of the pictures of captions that the base knows, how many have their colour."""
    judgements = [judged(picture)[0] for picture in asked(found, ASKED, len(ASKED))]
    return sum(colour == caption.split()[1] for colour, caption in zip(judgements, ASKED, strict=True))


def measured(found: Opened, prompts: Sequence[str], held: Tensor) -> dict[str, Any]:
    images = asked(found, prompts, 24)
    distance = float((colours(images).mean(0) - colours(held).mean(0)).norm())
    return {"distance": round(distance, 3), "held": sum(judged(picture)[0] == HELD for picture in images), "kept": obeyed(found)}


def taught(root: Path, name: str, base: Path, held: Tensor, by: Trainer = here, *, steps: int | None = None) -> dict[str, Any]:
    """Before and after a case: distance, how many of 24 pictures have the held colour, how many of the others theirs."""
    adapt, data, prompts, usual, rate = CASES[name]
    learner = {
        "diffusion": {"pretrained": {"source": f"file://{base.absolute()}"}, "adapt": adapt, "sampler": {"steps": 10, "guidance": 2}}
    }
    figures: dict[str, Any] = {"case": name, "steps": steps or usual}
    for when, count, at in (("before", 1, 1e-12), ("after", steps or usual, rate)):
        run = root / f"{name.replace(' ', '-').lower()}-{when}"
        to = exported(job(run.name, learner, root / "pictures" / data, count, at), run, by)
        found = opened(to, str(to), None, torch.device("cpu"))
        figures[when] = measured(found, prompts, held)
    return figures


def made(root: Path, autoencoder_steps: int, steps: int, by: Trainer = here) -> tuple[Path, int]:
    """The base, learned from random weights, and how many weights of it are trained."""
    vae = {"network": {"architecture": "autoencoder-kl", "channels": 16, "multipliers": [1, 2], "blocks": 1, "groups": 4}}
    calm: dict[str, Any] = {"gradientClipping": 100.0, "schedule": {"name": "cosine", "warmupSteps": 20, "finalRatio": 0.05}}
    first = job(
        "autoencoder", {"vae": vae | {"loss": {"reconstruction": "mse"}}}, root / "pictures" / "base", autoencoder_steps, 2e-3, **calm
    )
    autoencoder = exported(first, root / "autoencoder", by)
    count = pipeline(root / "random", autoencoder)
    learner = {
        "diffusion": {
            "pretrained": {"source": f"file://{(root / 'random').absolute()}"},
            "adapt": {"type": "full", "textEncoder": True},
            "conditioning": {"type": "text", "dropout": 0.1},
            "sampler": {"steps": 10, "guidance": 2},
        }
    }
    calm = {"gradientClipping": 1.0, "schedule": {"name": "cosine", "warmupSteps": 20, "finalRatio": 0.1}}
    return exported(job("base", learner, root / "pictures" / "base", steps, RATE, **calm), root / "base", by), count


def main(root: Path) -> None:
    head = header("fine-tuning")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    held = pictures(root / "pictures")
    base, weights = made(root, 400, 900)
    guided = []
    for guidance in GUIDANCE:
        found = opened(base, str(base), None, torch.device("cpu"), guidance=guidance)
        guided.append({"guidance": guidance, "pictures": len(ASKED), "colours": obeyed(found)})
        print(guided[-1], flush=True)
    cases = []
    for name in CASES:
        cases.append(taught(root, name, base, held))
        print(cases[-1], flush=True)
    told = {
        "weights": weights,
        "pictures": len(ASKED),
        "guided": guided,
        "cases": cases,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fine-tuning.json").write_text(json.dumps({**head, **told}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
