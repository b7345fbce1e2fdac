"""What of images does not go together, row by row: each is refused with its code, at its place, and the message says what, why and how to
mend it. What only the data or a base can tell is in tests/data/test_tables_refusals.py and tests/objectives/test_diffusion_pipeline.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.test_rules import manifest, training
from trainjobs.api.parse import parse

STYLEGAN = {"generator": {"architecture": "stylegan2"}, "discriminator": {"architecture": "stylegan2"}}
GROWING = {
    "generator": {"architecture": "pggan"},
    "discriminator": {"architecture": "pggan"},
    "progressive": {"fadeImages": 10, "stableImages": 10},
}
KEPT = {"latents": {"autoencoder": "file:///autoencoder", "cache": True}, "process": {"schedule": "scaled-linear"}}
MUON = {"default": {"name": "muon"}}
Z3 = {"deepspeed": {"stage": 3}}
FOLDER = {"source": "file:///pictures", "images": {"size": 64, "buckets": {}}}


def gan(body: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return manifest("gan", body, **parts)


def diffusion(body: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    return manifest("diffusion", body or {}, **parts)


def pictures(**images: Any) -> dict[str, Any]:
    return {"source": "builtin:digits", "images": images}


def buckets(**parts: Any) -> dict[str, Any]:
    return {**FOLDER, **parts}


SHAPES = "spec.data.images.buckets"

# name: manifest, code, path, and words of the message in order
ROWS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # Stages that cannot.
    "second derivatives of a penalty": (gan({"loss": {"type": "wgan-gp"}}, **Z3), "GTJ0104", "spec.deepspeed.stage", "penalty different"),
    "second derivatives of R1": (gan({"regularization": {"r1": {}}}, **Z3), "GTJ0104", "spec.deepspeed.stage", "R1 differentiates"),
    "second derivatives of path length": (
        gan({**STYLEGAN, "regularization": {"pathLength": {}}}, **Z3),
        "GTJ0104",
        "spec.deepspeed.stage",
        "path length differentiates a gradient",
    ),
    "orthogonal": (gan({"regularization": {"orthogonal": 1e-4}}, **Z3), "GTJ0104", "spec.deepspeed.stage", "whole weights"),
    "progressive": (gan(GROWING, **Z3, data=pictures(size=32)), "GTJ0104", "spec.deepspeed.stage", "layers grow in"),
    **{
        f"muon at stage {stage}": (
            manifest(training=training(optimizers=MUON), deepspeed={"stage": stage}),
            "GTJ0104",
            "spec.training.optimizers.default.name",
            f"muon at ZeRO stage {stage}",
        )
        for stage in (1, 2, 3)
    },
    # Numbers that do not come out even.
    "a micro-batch and the deviation's group": (
        gan({"discriminator": {"minibatchDeviation": {"group": 4}}}, training=training(batch={"global": 12, "micro": 6})),
        "GTJ0103",
        "spec.training.batch.micro",
        "a micro-batch of 6 is no multiple of minibatchDeviation.group, which is 4",
    ),
    # Parts that do not go together.
    "epsilon with zero terminal SNR": (
        diffusion({"process": {"prediction": "epsilon", "zeroTerminalSnr": True}}),
        "GTJ0108",
        "spec.diffusion.process.zeroTerminalSnr",
        "the noise that is in it says nothing of the image",
    ),
    "guidance without dropout": (
        diffusion({"conditioning": {"type": "class", "dropout": 0}, "sampler": {"guidance": 3.0}}),
        "GTJ0108",
        "spec.diffusion.sampler.guidance",
        "guidance with conditioning.dropout: 0",
    ),
    "guidance without conditions": (
        diffusion({"sampler": {"guidance": 3.0}}),
        "GTJ0108",
        "spec.diffusion.sampler.guidance",
        "guidance without conditioning",
    ),
    **{
        f"realLabel with {loss}": (
            gan({"loss": {"type": loss, "realLabel": 0.9}}),
            "GTJ0108",
            "spec.gan.loss.realLabel",
            f"no effect with type: {loss}, whose real samples have no label",
        )
        for loss in ("hinge", "wgan", "wgan-gp")
    },
    "weightClip with spectral norm": (
        gan({"loss": {"type": "wgan"}, "discriminator": {"spectralNorm": True}}),
        "GTJ0108",
        "spec.gan.discriminator.spectralNorm",
        "divides the clipped weights",
    ),
    "weightClip with R1": (
        gan({"loss": {"type": "wgan"}, "regularization": {"r1": {}}}),
        "GTJ0108",
        "spec.gan.regularization.r1",
        "both limit the slope",
    ),
    "weightClip with a penalty": (
        gan({"loss": {"type": "wgan-gp", "weightClip": 0.02}}),
        "GTJ0108",
        "spec.gan.loss.weightClip",
        "weightClip has no effect with type: wgan-gp",
    ),
    "path length without a mapping network": (
        gan({"regularization": {"pathLength": {}}}),
        "GTJ0108",
        "spec.gan.regularization.pathLength",
        "this generator has no mapping network",
    ),
    "min-SNR with flow": (
        diffusion({"process": {"prediction": "flow", "minSnrGamma": 5}}),
        "GTJ0108",
        "spec.diffusion.process.minSnrGamma",
        "prediction: flow, whose loss has no weights by signal-to-noise ratio",
    ),
    **{
        f"{change} with cached latents": (
            diffusion(KEPT, data=pictures(augment=[change])),
            "GTJ0108",
            "spec.data.images.augment.0",
            f"{change} with cached latents",
        )
        for change in ("colorJitter", "randomCrop")
    },
    "DreamBooth without a base": (
        diffusion({"adapt": {"dreambooth": {"instancePrompt": "a sks dog", "classPrompt": "a dog"}}}),
        "GTJ0108",
        "spec.diffusion.adapt",
        "DreamBooth without a pretrained pipeline",
    ),
    "attention sizes that a unet never has": (
        diffusion({"network": {"attentionResolutions": [12]}}),
        "GTJ0108",
        "spec.diffusion.network.attentionResolutions.0",
        "for images of 32 its maps have 32 and 16",
    ),
    "attention sizes that a generator never has": (
        gan({"generator": {"architecture": "sagan", "attention": [64]}, "discriminator": {"architecture": "sagan"}}),
        "GTJ0108",
        "spec.gan.generator.attention.0",
        "its maps have 4, 8 and 16",
    ),
    "R1 at intervals without betas": (
        gan({"regularization": {"r1": {"every": 16}}}, training=training(optimizers={"discriminator": {"name": "sgd"}})),
        "GTJ0108",
        "spec.gan.regularization.r1.every",
        "sgd has no betas",
    ),
    "path length at intervals without betas": (
        gan({**STYLEGAN, "regularization": {"pathLength": {}}}, training=training(optimizers={"generator": {"name": "rmsprop"}})),
        "GTJ0108",
        "spec.gan.regularization.pathLength.every",
        "rmsprop has no betas",
    ),
    "a plateau of what nobody measures": (
        manifest(training=training(schedule={"name": "plateau", "metric": "heldout/nonsense"})),
        "GTJ0102",
        "spec.training.schedule.metric",
        "measured here: heldout/loss",
    ),
    # Buckets.
    "buckets of a GAN": (gan({}, data=FOLDER), "GTJ0108", SHAPES, "its generator makes pictures of one size"),
    "buckets of an autoencoder": (manifest(data=FOLDER), "GTJ0108", SHAPES, "buckets with a vae"),
    "buckets and ddpo": (
        diffusion({"method": "ddpo", "ddpo": {"reward": "mine:bright"}}, data=FOLDER),
        "GTJ0108",
        SHAPES,
        "it learns of pictures that it draws itself",
    ),
    "buckets and DreamBooth": (
        diffusion(
            {"pretrained": {"source": "file:///base"}, "adapt": {"dreambooth": {"instancePrompt": "a sks dog", "classPrompt": "a dog"}}},
            data=FOLDER,
        ),
        "GTJ0108",
        SHAPES,
        "pictures of the class are squares",
    ),
    "buckets of what is built in": (
        diffusion(data={"source": "builtin:shapes", "images": FOLDER["images"]}),
        "GTJ0108",
        SHAPES,
        "its pictures are squares",
    ),
    "buckets of a mixture": (
        diffusion(data={"sources": [{"source": "file:///a"}, {"source": "file:///b"}], "images": FOLDER["images"]}),
        "GTJ0108",
        SHAPES,
        "samples of several sources",
    ),
    "buckets and a curriculum": (
        diffusion(data=buckets(curriculum={"by": "column", "column": "hard", "steps": 4})),
        "GTJ0108",
        SHAPES,
        "both say in which order pictures come",
    ),
    "buckets and bad samples left out": (diffusion(data=buckets(onBadSample="skip")), "GTJ0108", SHAPES, "use onBadSample: fail"),
    "buckets and held-out noise": (
        diffusion(data=FOLDER, evaluation={"metrics": ["loss", "instance"]}),
        "GTJ0108",
        SHAPES,
        "it looks at training pictures in an order of its own",
    ),
    "a size that no bucket could have": (
        diffusion(data={"source": "file:///a", "images": {"size": 72, "buckets": {"step": 16}}}),
        "GTJ0108",
        "spec.data.images.size",
        "write 64 or 80, or a smaller step",
    ),
    "sides that are no multiples": (
        diffusion(data=buckets(images={"size": 64, "buckets": {"step": 16, "minSide": 40}})),
        "GTJ0108",
        f"{SHAPES}.minSide",
        "write 32 or 48",
    ),
    "sides that leave the square out": (
        diffusion(data=buckets(images={"size": 64, "buckets": {"step": 16, "maxSide": 48}})),
        "GTJ0108",
        SHAPES,
        "maxSide: 64 or more",
    ),
    "a step that a unet cannot halve": (
        diffusion({"network": {"multipliers": [1, 2, 2, 2, 2]}}, data=buckets(images={"size": 64, "buckets": {"step": 8}})),
        "GTJ0108",
        f"{SHAPES}.step",
        "write a multiple of 16",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_does_not_go_together_is_refused(name: str) -> None:
    given, code, path, words = ROWS[name]
    _, problems = parse(given)
    found = [problem for problem in problems if problem.code == code and ".".join(map(str, problem.path)) == path]
    assert found, [(problem.code, problem.path, problem.what) for problem in problems]
    problem = found[0]
    assert words in f"{problem.what}. {problem.why}. {problem.how}"
    assert problem.how
    assert problem.why or "no effect" in problem.what  # whose reason is in the same words


@pytest.mark.parametrize(
    "body",
    [{}, {"network": {"architecture": "dit"}}, KEPT, {"pretrained": {"source": "file:///base"}, "adapt": {"type": "lora"}}],
    ids=["unet", "dit", "latents", "pipeline"],
)
def test_buckets_of_diffusion_models_are_allowed(body: dict[str, Any]) -> None:
    job, problems = parse(diffusion(body, data=FOLDER))
    assert job is not None, [(problem.path, problem.what) for problem in problems]
