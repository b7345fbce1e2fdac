"""The manifests that the campaign begins with, tiny ones, several of a family where a field has an effect only in some; and the values
that no type can tell: other data, other weights, other code."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from tests.monitor.standin_tracker import in_place_of
from tests.silence import pipelines, pretrained
from tests.silence.changes import Manifest

STOPS = 2  # the step at which an attempt stops
STEPS = 4
ADAM = {"name": "adam", "learningRate": 1e-3, "betas": [0.9, 0.99]}
SGD = {"name": "sgd", "learningRate": 0.01, "momentum": 0.5}
KL = {"architecture": "autoencoder-kl", "channels": 4, "multipliers": [1, 2], "blocks": 1, "latentChannels": 2, "groups": 2}
# What every job says beside its family; the rest of a manifest is there by default.
COMMON: dict[str, Any] = {
    "training": {
        "steps": STEPS,
        "batch": {"global": 4, "micro": 2},
        "optimizers": {"default": ADAM},
        "schedule": {"name": "cosine", "warmupSteps": 1},
        "gradientClipping": 0.5,
        "ema": {"decay": 0.9},
    },
    "deepspeed": {"stage": 0},
    "compute": {"workers": 1, "gpusPerWorker": 0},
    "pod": {"env": [{"name": "A", "value": "b"}], "files": [{"secret": "one", "mountPath": "/one"}]},
    "checkpoints": {"every": {"steps": 2}, "keep": {"best": {"metric": "heldout/loss"}}},
    "evaluation": {"samples": 1, "everySteps": 2},
    "recovery": {"onLossSpike": "warn", "lossSpike": {"zScore": 50.0, "window": 2}},
}


# Fields that no manifest can change alone, by the reason: they become what they are in another base, with all that it has.
WHOLE = {
    field: (base, other, "an architecture learns from other data, so the data changes with it")
    for field, base, other in (
        ("vae.network.architecture", "vae", "vae-mlp"),
        ("gan.generator.architecture", "gan", "gan-wgan"),
        ("gan.discriminator.architecture", "gan", "gan-wgan"),
    )
} | {
    "language.task": ("language-masked", "language-seq2seq", "a task has bases of its own, so the base and the data change with it"),
    "diffusion.adapt.textualInversion": ("diffusion-lora", "diffusion-word", "a new word is there with its type alone, and both change"),
}


def bases(folder: Path) -> dict[str, dict[str, Manifest]]:
    """By family, manifests by name; their data lies in `folder`. Trackers are stand-ins from here on."""
    in_place_of()
    pictures, words, records = f"file://{images(folder / 'images')}", f"file://{text(folder / 'text')}", f"file://{jsonl(folder / 'jsonl')}"
    small = {"source": pictures, "images": {"size": 8, "channels": 1}, "holdout": 0.25}
    letters = {"layers": 1, "hidden": 16, "heads": 2, "contextLength": 8}
    dcgan = {"architecture": "dcgan", "channels": 4}
    mlp = {"architecture": "mlp", "channels": 4, "layers": 1}
    unet = {"channels": 4, "multipliers": [1, 2]}
    mixed = {"sources": [{"source": pictures}, {"source": f"file://{images(folder / 'more', shift=40)}"}], "images": small["images"]}
    shapes = {"source": "builtin:shapes", "images": {"size": 8}, "holdout": 0.001}
    told = {"type": "text", "length": 24, "width": 16, "layers": 1, "heads": 2}
    asked = {"source": f"file://{preferences(folder / 'asked')}", "holdout": 0.25}
    auto = {"network": {"channels": 4, "latentDim": 2}}
    plain, momentum = {}, {"training": {"optimizers": {"default": SGD}, "ema": None}}
    unmeasured: dict[str, Any] = {"checkpoints": {"keep": {}}}
    return {
        "vae": {
            "vae": job("vae", {"network": {"channels": 4, "latentDim": 2}}, small, plain),
            "vae-mixed": job("vae", {"network": {"channels": 4, "latentDim": 2}}, {**mixed, "holdout": 0.25}, plain),
            "vae-kl": job("vae", {"network": {**KL}, "loss": {"reconstruction": "l1"}}, small, plain),
            "vae-mlp": job("vae", {"network": {**mlp, "latentDim": 2}}, {"source": "builtin:ring"}, momentum),
            "vae-scored": job("vae", auto, small, {"evaluation": {"metrics": ["loss", "fid"], "fidSamples": 6}}),
            "vae-queued": job("vae", auto, small, {"compute": {"queue": "team", "priorityClass": "low", "topology": {"required": "rack"}}}),
            "vae-queued-elastic": job("vae", auto, small, {"compute": {"queue": "team", "workers": "1-2"}}),
            **{
                f"vae-{name}": job("vae", auto, {**small, **data}, {"training": training})
                for name, (data, training) in any_family(folder).items()
            },
        },
        "gan": {
            "gan": job("gan", {"generator": {**dcgan, "latentDim": 2}, "discriminator": dcgan}, small, plain),
            "gan-wgan": job(
                "gan",
                {"generator": {**mlp, "latentDim": 2}, "discriminator": mlp, "loss": {"type": "wgan-gp"}},
                {"source": "builtin:ring"},
                momentum,
            ),
            "gan-clipped": job(
                "gan",
                {"generator": {**mlp, "latentDim": 2}, "discriminator": mlp, "loss": {"type": "wgan"}},
                {"source": "builtin:ring"},
                momentum,
            ),
            "gan-regular": job(
                "gan",
                {
                    "generator": {**dcgan, "latentDim": 2},
                    "discriminator": {**dcgan, "minibatchDeviation": {"group": 2}},
                    "regularization": {"r1": {"every": 2}},
                    "augment": {},
                },
                small,
                plain,
            ),
            "gan-classes": job(
                "gan",
                {
                    "generator": {"architecture": "sagan", "channels": 2, "latentDim": 2},
                    "discriminator": {"architecture": "sagan", "channels": 2},
                    "conditional": True,
                },
                {"source": "builtin:digits", "images": {"size": 8, "channels": 1}, "holdout": 0.01},
                plain,
            ),
            "gan-growing": job(
                "gan",
                {
                    "generator": {"architecture": "pggan", "channels": 2, "latentDim": 2},
                    "discriminator": {"architecture": "pggan", "channels": 2},
                    "progressive": {"start": 4, "fadeImages": 4, "stableImages": 8},
                },
                {**small, "images": {"size": 16, "channels": 1}},
                plain,
            ),
            "gan-styles": job(
                "gan",
                {
                    "generator": {"architecture": "stylegan2", "channels": 2, "latentDim": 2, "mappingLayers": 1},
                    "discriminator": {"architecture": "stylegan2", "channels": 2},
                    "regularization": {"pathLength": {"every": 2}},
                    "augment": {"type": "ada"},
                },
                small,
                plain,
            ),
        },
        "diffusion": {
            "diffusion": job("diffusion", {"network": unet, "process": {"timesteps": 10}, "sampler": {"steps": 2}}, small, plain),
            "diffusion-sgd": job("diffusion", {"network": unet, "process": {"prediction": "v"}, "sampler": {"steps": 2}}, small, momentum),
            "diffusion-text": job(
                "diffusion",
                {"network": unet, "conditioning": told, "process": {"timesteps": 10}, "sampler": {"steps": 2, "guidance": 2.0}},
                shapes,
                plain,
            ),
            "diffusion-dit": job(
                "diffusion",
                {
                    "network": {"architecture": "dit", "hidden": 16, "layers": 1, "heads": 2, "patch": 2},
                    "process": {"timesteps": 10},
                    "sampler": {"steps": 2},
                },
                small,
                plain,
            ),
            "diffusion-latents": job(
                "diffusion",
                {
                    "latents": {"autoencoder": f"file://{autoencoder(folder / 'autoencoder')}"},
                    "network": unet,
                    "process": {"prediction": "v", "timesteps": 10},
                    "sampler": {"steps": 2},
                },
                small,
                plain,
            ),
            "diffusion-ddpo": job(
                "diffusion",
                {
                    "network": unet,
                    "process": {"timesteps": 10},
                    "sampler": {"steps": 3, "eta": 1.0},
                    "method": "ddpo",
                    "ddpo": {"reward": "tests.silence.objective:brightness", "epochs": 2, "promptBuffer": 4, "promptMinimum": 4},
                },
                small,
                plain,
            ),
            "diffusion-small": job(
                "diffusion",
                {"network": unet, "process": {"prediction": "v", "timesteps": 16}, "sampler": {"steps": 2}},
                {**small, "images": {"size": 16, "channels": 1}, "curriculum": {"by": "resolution", "size": 4, "steps": 3}},
                plain,
            ),
            "diffusion-shapes": job(
                "diffusion",
                {"network": unet, "process": {"timesteps": 10}, "sampler": {"steps": 2}},
                {**small, "source": f"file://{wide(folder / 'wide')}", "images": {"size": 16, "channels": 1, "buckets": SIDES}},
                plain,
            ),
            "diffusion-flow": job("diffusion", {"network": unet, "process": {"prediction": "flow"}, "sampler": {"steps": 2}}, small, plain),
            **{f"diffusion-{name}": job("diffusion", part, shapes, plain) for name, part in pipelines.named(folder).items()},
        },
        "language": {
            "language": job("language", {"network": letters}, {"source": words, "holdout": 0.25}, plain),
            "language-bpe": job(
                "language",
                {"network": {**letters, "dropout": 0.1}, "tokenizer": {"type": "bpe", "vocabularySize": 280}},
                {"source": records, "holdout": 0.25, "text": {"field": "text"}},
                momentum,
            ),
            **{
                f"language-{name}": job("language", {"network": {**letters, "contextLength": 48}, **part}, asked, unmeasured)
                for name, part in aligned(folder).items()
            },
            "language-won": job(
                "language",
                {"network": {**letters, "contextLength": 48}, **aligned(folder)["grpo"]},
                asked,
                {**unmeasured, "evaluation": {"metrics": ["loss", "win_rate"], "rewards": aligned(folder)["grpo"]["grpo"]["rewards"]}},
            ),
            **{
                f"language-{name}": job("language", part, {"source": f"file://{answers(folder / 'answers')}", "holdout": 0.25}, unmeasured)
                for name, part in distilled(folder).items()
            },
            **{
                f"language-{name}": job("language", part, {"source": words, "holdout": 0.25}, plain)
                for name, part in going_on(folder).items()
            },
            "language-template": job(
                "language", templated(folder), {"source": f"file://{chats(folder / 'chats')}", "holdout": 0.25}, plain
            ),
            "language-masked": job("language", of_task("masked", folder), {"source": words, "holdout": 0.25}, plain),
            "language-spans": job("language", spans(folder), {"source": words, "holdout": 0.25}, plain),
            "language-seq2seq": job("language", of_task("seq2seq", folder), {"source": pairs(folder / "pairs"), "holdout": 0.25}, plain),
        },
        "custom": {
            "custom": job("custom", {"objective": "tests.silence.objective:build", "options": {"width": 4}}, small, plain),
            "custom-sgd": job("custom", {"objective": "tests.silence.objective:build"}, small, momentum),
        },
    }


def any_family(folder: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What every family can use and has an effect beside something else only: data and training, by name."""
    turned = {"images": {"size": 8, "channels": 3, "augment": ["rotation", "randomCrop", "colorJitter"]}}
    inside = ["autoencoder.encoder.*"]
    return {
        "turned": (turned, {}),
        "eased": ({"source": f"file://{ranked(folder / 'ranked')}", "curriculum": {"by": "column", "column": "hard", "steps": 4}}, {}),
        "plateau": ({}, {"schedule": {"name": "plateau", "warmupSteps": 1, "metric": "heldout/loss"}}),
        "rms": ({}, {"optimizers": {"default": {"name": "rmsprop", "learningRate": 1e-3}}}),
        "muon": ({}, {"optimizers": {"default": {"name": "muon", "learningRate": 1e-3}}}),
        "frozen": ({}, {"freeze": inside, "unfreeze": [{"step": 3, "patterns": inside}]}),
        "weights": ({}, {"initialWeights": f"file://{weights(folder / 'weights')}", "allowPartialWeights": True}),
        "tracked": ({}, {"tracking": {"tracker": "trackio"}}),
        "sparse": ({}, {"sparsity": {"weights": 0.1, "activations": 0.1, "layers": ["autoencoder.encoder.layers.*"]}}),
    }


def aligned(folder: Path) -> dict[str, dict[str, Any]]:
    """Language models that learn from preferences and rewards, by method."""
    rewards = [{"function": "length", "target": 4}, {"function": "regex", "pattern": "a"}, {"function": "match", "column": "chosen"}]
    grpo = {"rewards": rewards, "generations": 2, "maxCompletion": 4, "epochs": 2, "beta": 0.1}
    ppo = {"rewards": rewards, "maxCompletion": 4, "epochs": 2, "missingEosPenalty": 0.5}
    few = {"rewards": rewards[:1], "generations": 2, "maxCompletion": 4, "dynamicSampling": 2}
    return {
        "dpo": {"method": "dpo"},
        "reward": {"method": "reward"},
        "grpo": {"method": "grpo", "grpo": grpo},
        "grpo-dynamic": {"method": "grpo", "grpo": few},
        "ppo": {"method": "ppo", "ppo": ppo},
        "judged": {"method": "grpo", "grpo": {**few, "rewards": [{"source": f"file://{pretrained.classifier(folder / 'judge')}"}]}},
    }


def distilled(folder: Path) -> dict[str, dict[str, Any]]:
    """Language models that learn from a teacher."""
    teacher = {"source": f"file://{pretrained.model(folder / 'teacher', seed=2)}"}
    pretrained.hub(folder / "hub")
    student = {"base": {"source": f"file://{pretrained.model(folder / 'base')}"}, "network": {"contextLength": 32}, "method": "distill"}
    return {
        "distill": {**student, "distill": {"teacher": teacher, "temperature": 2.0}},
        "distill-own": {
            **student,
            "packing": "none",
            "distill": {"teacher": teacher, "onPolicy": 0.5, "maxCompletion": 6, "beta": 0.5, "hiddenStates": 0.1},
        },
        "distill-once": {**student, "distill": {"teacher": teacher, "temperature": 2.0, "topK": 8}},
        "distill-hub": {**student, "distill": {"teacher": {"source": "hf://org/small", "revision": "v1"}}},
    }


def features(path: Path) -> Path:
    """A network whose features are compared, as TorchScript."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    torch.jit.trace(network.eval(), torch.zeros(2, 3, 8, 8)).save(str(path))
    return path


def autoencoder(folder: Path, seed: int = 0) -> Path:
    """Of grey pictures, as diffusers leaves it: random weights, of which one seed differs from another's."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    told = {"in_channels": 1, "out_channels": 1, "block_out_channels": [4], "latent_channels": 2, "norm_num_groups": 2}
    AutoencoderKL(layers_per_block=1, down_block_types=["DownEncoderBlock2D"], up_block_types=["UpDecoderBlock2D"], **told).save_pretrained(
        folder
    )
    return folder


SIDES = {"step": 8, "minSide": 8, "maxSide": 32}


def wide(folder: Path) -> Path:
    """Eight squares, and eight pictures four times as wide as high."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(16):
        Image.new("L", (8 if number % 2 else 32, 8), 16 * number).save(folder / f"{number:02}.png")
    return folder


def weights(folder: Path) -> Path:
    """Of which one fits."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"encoder.layers.0.bias": torch.zeros(4), "other": torch.zeros(1)}, folder / "autoencoder.safetensors")
    return folder


def preferences(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = (f'{{"prompt": "{n} and {n}? ", "chosen": "{2 * n}", "rejected": "no {n}"}}\n' for n in range(60))
    (folder / "asked.jsonl").write_text("".join(rows))
    return folder


def answers(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = (f'{{"prompt": "{n}? ", "completion": "{2 * n}"}}\n' for n in range(60))
    (folder / "answers.jsonl").write_text("".join(rows))
    return folder


def going_on(folder: Path) -> dict[str, dict[str, Any]]:
    """Language models that go on from a base, by what is trained of it."""
    base = {"base": {"source": f"file://{pretrained.model(folder / 'base')}"}, "network": {"contextLength": 8}}
    hub = {"source": "hf://org/small", "revision": "v1"}
    pretrained.hub(folder / "hub")
    return {
        "lora": {**base, "adapter": {"rank": 2}},
        "tokens": {**base, "adapter": {"rank": 2, "trainTokens": ["a", "b"]}},
        "whole": base,
        "hub": {**base, "base": hub, "adapter": {"rank": 2}},
        "unfreezing": {**base, "unfreezing": {"every": 1}},
        "prompt": {**base, "adapter": {"type": "prompt", "virtualTokens": 2}},
        "text": {**base, "adapter": {"type": "prompt", "virtualTokens": 2, "init": "text", "initText": "ab"}},
        "bottleneck": {**base, "adapter": {"type": "bottleneck", "reduction": 2}},
    }


def templated(folder: Path) -> dict[str, Any]:
    base = {"base": {"source": f"file://{pretrained.model(folder / 'base')}"}, "network": {"contextLength": 32}}
    return {**base, "template": "zephyr"}


def chats(folder: Path) -> Path:
    """Conversations, and beside them another way to write them."""
    folder.mkdir(parents=True, exist_ok=True)
    said = ([{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": f"{2 * n}"}] for n in range(40))
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in said))
    words = "{% for message in messages %}{{ message.role[:1] + message.content + eos_token }}{% endfor %}"
    folder.with_suffix(".jinja").write_text(words + "{% if add_generation_prompt %}a{% endif %}")
    return folder


def of_task(task: str, folder: Path) -> dict[str, Any]:
    base = pretrained.of_task(task, folder / f"base-{task}")
    return {"task": task, "base": {"source": f"file://{base}"}, "network": {"contextLength": 24}}


def spans(folder: Path) -> dict[str, Any]:
    return {**of_task("seq2seq", folder), "spanCorruption": {"noiseDensity": 0.3, "meanNoiseSpanLength": 2.0}}


def pairs(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.jsonl").write_text("".join(f'{{"source": "{n} and {n}", "target": "{2 * n}"}}\n' for n in range(40)))
    return f"file://{folder}"


def job(family: str, part: dict[str, Any], data: dict[str, Any], more: dict[str, Any]) -> Manifest:
    common = copy.deepcopy(COMMON)
    for room, values in more.items():
        common[room] = {key: value for key, value in {**common[room], **values}.items() if value is not None}
    spec = {family: part, "data": data, **common}
    if family == "gan":  # the loss of held-out data is none of a gan's
        common["checkpoints"]["keep"] = {"best": {"metric": "modes"}} if data["source"] == "builtin:ring" else {}
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "test"}, "spec": spec}


def given(folder: Path) -> dict[str, dict[str, Any]]:
    """Values by field and base ("" for every one) of fields whose type does not say what makes sense."""
    elsewhere = f"file://{images(folder / 'other-images', shift=7)}"
    words = f"file://{text(folder / 'other-text', more='And one line more.')}"
    return {
        "data.source": {"": elsewhere, "language": words, "language-bpe": words},
        "data.sources.*.source": {"vae-mixed": elsewhere},
        "evaluation.features": {"": f"file://{features(folder / 'features.pt')}"},
        "diffusion.latents.autoencoder": {"": f"file://{autoencoder(folder / 'other-autoencoder', seed=1)}"},
        "data.curriculum.column": {"": "odd"},
        **pipelines.given(folder),
        "language.base.source": {"": f"file://{pretrained.model(folder / 'other-base', seed=1)}"},
        "language.template": {"": f"file://{chats(folder / 'chats').with_suffix('.jinja')}"},
        "language.base.revision": {"language-hub": "v2"},
        "language.grpo.rewards.*.source": {"": f"file://{pretrained.classifier(folder / 'other-judge', seed=1)}"},
        "language.ppo.rewards.*.source": {"": f"file://{pretrained.classifier(folder / 'other-judge', seed=1)}"},
        "language.distill.teacher": {"language-distill": {"source": f"file://{pretrained.model(folder / 'other-base', seed=1)}"}},
        "language.distill.teacher.source": {"": f"file://{pretrained.model(folder / 'other-base', seed=1)}"},
        "language.distill.teacher.revision": {"language-distill-hub": "v2"},
        "language.distill.prepared": {"language-distill-once": f"file://{folder}/nothing"},
        "diffusion.ddpo.reward": {"": "tests.silence.objective:darkness"},
        "language.adapter.targets": {"": ["c_attn"]},
        "language.adapter.modulesToSave": {"": ["ln_f"]},
        "language.adapter.trainTokens": {"": ["c"]},
        "training.schedule.metric": {"": "heldout/active_units"},
        "custom.objective": {"": "tests.silence.objective:other"},
        "custom.options": {"": {"width": 4, "scale": 2.0}},
        "deepspeed.config": {"": {"prescale_gradients": True}},
        "training.initialWeights": {"": f"file://{folder}/weights"},
        "checkpoints.uri": {"": f"file://{folder}/elsewhere"},
        "checkpoints.resumeFrom": {"": "none"},
    }


def images(folder: Path, shift: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(16):
        picture(folder / f"{number:02}.png", number + shift)
    return folder


def ranked(folder: Path) -> Path:
    """With two opinions of what is hard."""
    lines = (f'{{"file_name": "{number:02}.png", "hard": {number}, "odd": {-number}}}\n' for number in range(16))
    (images(folder) / "metadata.jsonl").write_text("".join(lines))
    return folder


def picture(path: Path, number: int) -> None:
    """Stripes, whose file is as large whatever the number."""
    rows = bytes((x * (number + 1) * 29 + y * 13) % 256 for y in range(8) for x in range(8))
    Image.frombytes("L", (8, 8), rows).save(path, compress_level=0)


def text(folder: Path, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(8):
        lines = (f"{number} times {line} is {number * line}, says chapter {number}." for line in range(8))
        (folder / f"{number}.txt").write_text("\n".join(lines) + (more if number == 7 else ""))
    return folder


def jsonl(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = (
        f'{{"text": "Line {n} says that {n} and {n} are {2 * n}.", "other": "Nobody reads the line numbered {n} twice, not once."}}\n'
        for n in range(60)
    )
    (folder / "lines.jsonl").write_text("".join(rows))
    return folder
