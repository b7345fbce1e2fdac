"""Each rule: manifests it refuses, with code, path and the words that matter, and near misses it lets pass."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from trainjobs.api.job import Job
from trainjobs.api.parse import parse
from trainjobs.api.rules import check

FAMILY_DATA = {
    "gan": {"source": "builtin:digits"},
    "vae": {"source": "builtin:digits"},
    "diffusion": {"source": "builtin:digits"},
    "language": {"source": "builtin:stdlib-text"},
}
DEVIATION = {"discriminator": {"minibatchDeviation": {}}}
MLP_GAN = {"generator": {"architecture": "mlp"}, "discriminator": {"architecture": "mlp"}}


def manifest(family: str = "vae", body: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    """A valid manifest of a family; keyword arguments replace parts of the spec."""
    spec = {family: body or {}, "data": FAMILY_DATA.get(family, {"source": "builtin:digits"}), "training": {"steps": 10}}
    return {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "job"},
        "spec": copy.deepcopy({**spec, **parts}),
    }


def training(**parts: Any) -> dict[str, Any]:
    return {"steps": 10, **parts}


def data(source: str, **parts: Any) -> dict[str, Any]:
    return {"source": source, **parts}


def process(**fields: Any) -> dict[str, Any]:
    return {"process": fields}


BEST = "spec.checkpoints.keep.best.metric"

REFUSED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # name: manifest, code, path, words of the message
    "best of held-out samples that there are not": (
        manifest(data={"source": "builtin:digits", "holdout": 0}, checkpoints={"keep": {"best": {"metric": "heldout/loss"}}}),
        "GTJ0108",
        BEST,
        "data.holdout is 0: no sample is held out",
    ),
    "no family": (manifest("vae", vae=None), "GTJ0105", "spec.vae", "write `vae: {}`"),
    "two families": (manifest("vae", diffusion={}), "GTJ0106", "spec.diffusion", "keep one of vae or diffusion"),
    "an elastic queue without a queue": (
        manifest(compute={"workers": "1-2", "queueElastic": True}),
        "GTJ0108",
        "spec.compute.queueElastic",
        "needs a queue",
    ),
    "an elastic queue of a fixed group": (
        manifest(compute={"workers": 2, "queue": "team", "queueElastic": True}),
        "GTJ0108",
        "spec.compute.queueElastic",
        "needs an elastic group",
    ),
    "an elastic queue of one size": (
        manifest(compute={"workers": "2-2", "queue": "team", "queueElastic": True}),
        "GTJ0108",
        "spec.compute.queueElastic",
        'such as "2-8"',
    ),
    "batch and workers": (manifest(compute={"workers": 3}), "GTJ0103", "spec.training.batch.global", "63 or 66"),
    "batch smaller than workers": (
        manifest(training=training(batch={"global": 2}), compute={"workers": 4}),
        "GTJ0103",
        "spec.training.batch.global",
        "nearest sizes that do: 4",
    ),
    "batch and micro": (
        manifest(training=training(batch={"global": 64, "micro": 24}), compute={"workers": 2}),
        "GTJ0103",
        "spec.training.batch.global",
        "48 or 96",
    ),
    "batch and GPUs": (
        manifest(compute={"workers": 2, "gpusPerWorker": 3}),
        "GTJ0103",
        "spec.training.batch.global",
        "2 workers of 3 GPUs",
    ),
    "batch and the low end": (manifest(compute={"workers": "3-8"}), "GTJ0103", "spec.training.batch.global", "48 or 72"),
    "sizes within the range": (
        manifest(compute={"workers": "3-9"}),
        "GTJ0103",
        "spec.training.batch.global",
        "for this batch, of the numbers of workers in that range: 4 or 8",
    ),
    "batch and the high end": (manifest(compute={"workers": "2-6"}), "GTJ0103", "spec.training.batch.global", "60 or 66"),
    "range reversed": (manifest(compute={"workers": "8-2"}), "GTJ0102", "spec.compute.workers", 'did you mean "2-8"?'),
    "gan at stage 3": (manifest("gan", deepspeed={"stage": 3}), "GTJ0104", "spec.deepspeed.stage", "use stage 0, 1, 2 or auto"),
    "penalty at stage 3": (
        manifest("gan", {"loss": {"type": "wgan-gp"}}, deepspeed={"stage": 3}),
        "GTJ0104",
        "spec.deepspeed.stage",
        "second backward",
    ),
    "unknown builtin": (manifest(data=data("builtin:digts")), "GTJ0102", "spec.data.source", 'did you mean "builtin:digits"?'),
    "password in a URI": (manifest(data=data("s3://me:pw@bucket/x")), "GTJ0107", "spec.data.source", "carries a user or password"),
    "query in a URI": (manifest(data=data("s3://bucket/x?sig=abc")), "GTJ0107", "spec.data.source", "carries a query"),
    "fragment in a URI": (manifest(data=data("gs://bucket/x#y")), "GTJ0107", "spec.data.source", "carries a fragment"),
    "dots in a URI": (manifest(data=data("file:///data/../etc")), "GTJ0107", "spec.data.source", "climbs"),
    "relative file": (manifest(data=data("file://data/x")), "GTJ0107", "spec.data.source", "file:///data/x"),
    "relative file below": (manifest(data=data("file://../x")), "GTJ0107", "spec.data.source", "copy the data to a bucket"),
    "relative file held out": (
        manifest(data=data("s3://b/x", split={"validation": "file://./y"})),
        "GTJ0107",
        "spec.data.split.validation",
        "mount it (spec.pod.volumes) and name its path there: file:///y",
    ),
    "a builtin held out": (
        manifest(data=data("s3://b/x", split={"validation": "builtin:digits"})),
        "GTJ0107",
        "spec.data.split.validation",
        "a whole by itself",
    ),
    "a split that is no name": (
        manifest(data=data("s3://b/x", split={"validation": "s4://b/y"})),
        "GTJ0107",
        "spec.data.split.validation",
        "write its name, such as validation",
    ),
    "no bucket": (manifest(data=data("s3:///x")), "GTJ0107", "spec.data.source", "names no bucket"),
    "white space in a URI": (manifest(data=data("file:///my data")), "GTJ0107", "spec.data.source", "white space"),
    "bucket root": (manifest(checkpoints={"uri": "s3://bucket"}), "GTJ0107", "spec.checkpoints.uri", "s3://bucket/my-job"),
    "bucket root with slashes": (manifest(checkpoints={"uri": "gs://bucket//"}), "GTJ0107", "spec.checkpoints.uri", "root"),
    "file system root": (manifest(checkpoints={"uri": "file:///"}), "GTJ0107", "spec.checkpoints.uri", "root"),
    "weights from a root": (
        manifest(training=training(initialWeights="gs://bucket")),
        "GTJ0107",
        "spec.training.initialWeights",
        "lie in a",
    ),
    "weights with a query": (
        manifest(training=training(initialWeights="s3://b/x?sig=1")),
        "GTJ0107",
        "spec.training.initialWeights",
        "query",
    ),
    "two beginnings": (
        manifest(training=training(initialWeights="s3://b/x"), checkpoints={"resumeFrom": "s3://b/y/steps/000000000100-a1"}),
        "GTJ0108",
        "spec.training.initialWeights",
        "keep resumeFrom to go on",
    ),
    "resume from a root": (manifest(checkpoints={"resumeFrom": "s3://bucket"}), "GTJ0107", "spec.checkpoints.resumeFrom", "root"),
    "optimizer of no network": (
        manifest("gan", training=training(optimizers={"genrator": {}})),
        "GTJ0102",
        "spec.training.optimizers.genrator",
        'did you mean "generator"?',
    ),
    "optimizer of another family": (
        manifest(training=training(optimizers={"discriminator": {}})),
        "GTJ0102",
        "spec.training.optimizers.discriminator",
        "autoencoder or default",
    ),
    "language on images": (manifest("language", data=data("builtin:digits")), "GTJ0108", "spec.language", "builtin:stdlib-text"),
    "images on text": (manifest(data=data("builtin:stdlib-text")), "GTJ0108", "spec.vae.network.architecture", "holds texts"),
    "unet on points": (manifest("diffusion", data=data("builtin:ring")), "GTJ0108", "spec.diffusion", "builtin:digits"),
    "dcgan on points": (manifest("gan", data=data("builtin:ring")), "GTJ0108", "spec.gan.generator.architecture", "architecture: mlp"),
    "mlp on images": (manifest("gan", MLP_GAN), "GTJ0108", "spec.gan.generator.architecture", "architecture: dcgan"),
    "mlp on a folder": (
        manifest("gan", MLP_GAN, data=data("file:///x")),
        "GTJ0108",
        "spec.gan.generator.architecture",
        "builtin:ring only",
    ),
    "images field with text": (
        manifest("language", data=data("builtin:stdlib-text", images={"size": 8})),
        "GTJ0108",
        "spec.data.images",
        "take spec.data.images out",
    ),
    "text field with images": (manifest(data=data("builtin:digits", text={"field": "body"})), "GTJ0108", "spec.data.text", "take"),
    "two kinds of networks": (
        manifest("gan", {"generator": {"architecture": "mlp"}}, data=data("builtin:ring")),
        "GTJ0108",
        "spec.gan.discriminator.architecture",
        "use mlp for both",
    ),
    "bce on points": (
        manifest("vae", {"network": {"architecture": "mlp"}, "loss": {"reconstruction": "bce"}}, data=data("builtin:ring")),
        "GTJ0108",
        "spec.vae.loss.reconstruction",
        "use mse",
    ),
    "batch norm in the critic": (
        manifest("gan", {"loss": {"type": "wgan-gp"}, "discriminator": {"normalization": "batch"}}),
        "GTJ0108",
        "spec.gan.discriminator.normalization",
        "Gulrajani",
    ),
    "unet too deep": (
        manifest("diffusion", {"network": {"multipliers": [1, 2, 2, 2]}}, data=data("builtin:digits", images={"size": 8})),
        "GTJ0108",
        "spec.diffusion.network.multipliers",
        "at most 3",
    ),
    "guidance without a condition": (
        manifest("diffusion", {"sampler": {"guidance": 3.0}}),
        "GTJ0108",
        "spec.diffusion.sampler.guidance",
        "there is no condition to be guided by",
    ),
    "guidance without dropout": (
        manifest("diffusion", {"sampler": {"guidance": 3.0}, "conditioning": {"type": "class", "dropout": 0}}),
        "GTJ0108",
        "spec.diffusion.sampler.guidance",
        "never learns what there is without a condition",
    ),
    "a text encoder of classes": (
        manifest("diffusion", {"conditioning": {"type": "class", "layers": 3}}),
        "GTJ0108",
        "spec.diffusion.conditioning.layers",
        "use text",
    ),
    "heads of a text encoder": (
        manifest("diffusion", {"conditioning": {"type": "text", "width": 66}}),
        "GTJ0108",
        "spec.diffusion.conditioning.width",
        "nearest width that does: 68",
    ),
    "heads of a transformer": (
        manifest("diffusion", {"network": {"architecture": "dit", "hidden": 390}}),
        "GTJ0108",
        "spec.diffusion.network.hidden",
        "nearest width that does: 408",
    ),
    "channels of a transformer": (
        manifest("diffusion", {"network": {"architecture": "dit", "channels": 64}}),
        "GTJ0108",
        "spec.diffusion.network.channels",
        "use unet",
    ),
    "patches of a unet": (
        manifest("diffusion", {"network": {"patch": 4}}),
        "GTJ0108",
        "spec.diffusion.network.patch",
        "use dit",
    ),
    "a patch as large as the image": (
        manifest("diffusion", {"network": {"architecture": "dit", "patch": 8}}, data=data("builtin:digits", images={"size": 8})),
        "GTJ0108",
        "spec.diffusion.network.patch",
        "use smaller patches",
    ),
    "attention where there is no map": (
        manifest("diffusion", {"network": {"attentionResolutions": [16, 4]}}, data=data("builtin:shapes", images={"size": 16})),
        "GTJ0108",
        "spec.diffusion.network.attentionResolutions[1]",
        "its maps have 16 and 8",
    ),
    "attention of a unet twice": (
        manifest("diffusion", {"network": {"attentionResolutions": [16, 16]}}, data=data("builtin:shapes", images={"size": 16})),
        "GTJ0108",
        "spec.diffusion.network.attentionResolutions[1]",
        "take one out",
    ),
    "resolutions of no attention": (
        manifest("diffusion", {"network": {"attention": False, "attentionResolutions": [32]}}),
        "GTJ0108",
        "spec.diffusion.network.attentionResolutions",
        "use true",
    ),
    "prompts for nothing": (
        manifest("diffusion", evaluation={"prompts": ["a red circle"]}),
        "GTJ0108",
        "spec.evaluation.prompts",
        "samples are drawn for nothing",
    ),
    "a rotation that is not made": (
        manifest("diffusion", data=data("builtin:shapes", images={"augment": ["randomCrop"], "strength": {"rotation": 30}})),
        "GTJ0108",
        "spec.data.images.strength.rotation",
        "add rotation to data.images.augment",
    ),
    "noise that says nothing": (
        manifest("diffusion", process(zeroTerminalSnr=True)),
        "GTJ0108",
        "spec.diffusion.process.zeroTerminalSnr",
        "use prediction: v or sample",
    ),
    "zero terminal SNR of a flow": (
        manifest("diffusion", process(prediction="flow", zeroTerminalSnr=True)),
        "GTJ0108",
        "spec.diffusion.process.zeroTerminalSnr",
        "ends in pure noise by itself",
    ),
    "min-SNR of a flow": (
        manifest("diffusion", process(prediction="flow", minSnrGamma=5)),
        "GTJ0108",
        "spec.diffusion.process.minSnrGamma",
        "no weights by signal-to-noise ratio",
    ),
    "min-SNR of a learned schedule": (
        manifest("diffusion", process(schedule="learned", minSnrGamma=5)),
        "GTJ0108",
        "spec.diffusion.process.minSnrGamma",
        "the bound itself",
    ),
    "variance of a flow": (
        manifest("diffusion", process(prediction="flow", learnedVariance=True)),
        "GTJ0108",
        "spec.diffusion.process.learnedVariance",
        "the velocity alone",
    ),
    "variance of a learned schedule": (
        manifest("diffusion", process(schedule="learned", learnedVariance=True)),
        "GTJ0108",
        "spec.diffusion.process.learnedVariance",
        "too small for it to matter",
    ),
    "schedule of a flow": (
        manifest("diffusion", process(prediction="flow", schedule="linear")),
        "GTJ0108",
        "spec.diffusion.process.schedule",
        "whose path is straight",
    ),
    "learned schedule of a flow": (
        manifest("diffusion", process(prediction="flow", schedule="learned")),
        "GTJ0108",
        "spec.diffusion.process.schedule",
        "whose path is straight",
    ),
    "learned schedule of v": (
        manifest("diffusion", process(schedule="learned", prediction="v")),
        "GTJ0108",
        "spec.diffusion.process.schedule",
        "use prediction: epsilon",
    ),
    "times of steps": (
        manifest("diffusion", process(timeSampling="logit-normal")),
        "GTJ0108",
        "spec.diffusion.process.timeSampling",
        "use flow",
    ),
    "shift of steps": (manifest("diffusion", process(shift=3)), "GTJ0108", "spec.diffusion.process.shift", "use flow"),
    "noise of a flow": (
        manifest("diffusion", process(prediction="flow") | {"sampler": {"eta": 0.5}}),
        "GTJ0108",
        "spec.diffusion.sampler.eta",
        "Euler's method",
    ),
    "bits of a flow": (
        manifest("diffusion", process(prediction="flow"), evaluation={"metrics": ["loss", "bits"]}),
        "GTJ0108",
        "spec.evaluation.metrics",
        "no bound of the likelihood",
    ),
    "best bits of a flow": (
        manifest("diffusion", process(prediction="flow"), checkpoints={"keep": {"best": {"metric": "heldout/bits"}}}),
        "GTJ0108",
        BEST,
        "use heldout/loss",
    ),
    "bits of a vae": (manifest(evaluation={"metrics": ["bits"]}), "GTJ0108", "spec.evaluation.metrics", "diffusion models"),
    "instance of a vae": (manifest(evaluation={"metrics": ["instance"]}), "GTJ0108", "spec.evaluation.metrics", "diffusion model"),
    "instance of a curriculum": (
        manifest(
            "diffusion",
            evaluation={"metrics": ["instance"]},
            data=data("builtin:digits", curriculum={"by": "resolution", "steps": 5, "size": 8}),
        ),
        "GTJ0108",
        "spec.data.curriculum",
        "all training pictures",
    ),
    "active units of noise": (
        manifest("diffusion", evaluation={"metrics": ["active_units"]}),
        "GTJ0108",
        "spec.evaluation.metrics",
        "latent dimensions",
    ),
    "optimizer of a schedule that is not learned": (
        manifest("diffusion", training=training(optimizers={"noise_schedule": {}})),
        "GTJ0102",
        "spec.training.optimizers.noise_schedule",
        "denoiser or default",
    ),
    "cycles of one rise": (
        manifest(body={"loss": {"annealing": {"steps": 100, "cycles": 2}}}),
        "GTJ0108",
        "spec.vae.loss.annealing.cycles",
        "use cyclical",
    ),
    "heads": (
        manifest("language", {"network": {"hidden": 128, "heads": 6}}),
        "GTJ0108",
        "spec.language.network.heads",
        "4 or 8",
    ),
    "odd heads of llama": (
        manifest("language", {"network": {"architecture": "llama", "hidden": 24, "heads": 8}}),
        "GTJ0108",
        "spec.language.network.heads",
        "rotary",
    ),
    "perplexity of images": (manifest(evaluation={"metrics": ["perplexity"]}), "GTJ0108", "spec.evaluation.metrics", "language"),
    "modes of digits": (manifest(evaluation={"metrics": ["modes"]}), "GTJ0108", "spec.evaluation.metrics", "builtin:ring"),
    "best of nothing": (manifest("gan", checkpoints={"keep": {"best": {"metric": "fid"}}}), "GTJ0102", BEST, "measured here: fid/digits"),
    "fid of points": (
        manifest("gan", MLP_GAN, data=data("builtin:ring"), evaluation={"metrics": ["fid"]}),
        "GTJ0108",
        "spec.evaluation.metrics",
        "pictures",
    ),
    "fid of a language model": (
        manifest("language", data=data("builtin:stdlib-text"), evaluation={"metrics": ["fid"]}),
        "GTJ0108",
        "spec.evaluation.metrics",
        "pictures",
    ),
    "is without classes": (
        manifest(data=data("builtin:shapes"), evaluation={"metrics": ["is"]}),
        "GTJ0108",
        "spec.evaluation.metrics",
        "classifier",
    ),
    "best by features that it has not": (
        manifest(checkpoints={"keep": {"best": {"metric": "fid/random"}}}, data=data("builtin:digits")),
        "GTJ0102",
        BEST,
        "fid/digits",
    ),
    "features of nothing": (
        manifest(evaluation={"features": "file:///net.pt"}),
        "GTJ0108",
        "spec.evaluation.features",
        "no effect",
    ),
    "pictures of nothing": (manifest(evaluation={"fidSamples": 10}), "GTJ0108", "spec.evaluation.fidSamples", "no effect"),
    "features anywhere": (
        manifest(evaluation={"metrics": ["fid"], "features": "s3://bucket/a/../net.pt"}),
        "GTJ0107",
        "spec.evaluation.features",
        "climbs",
    ),
    "best of another name": (manifest(checkpoints={"keep": {"best": {"metric": "heldout.loss"}}}), "GTJ0102", BEST, '"heldout/loss"?'),
    "perplexity of pixels": (manifest(checkpoints={"keep": {"best": {"metric": "heldout/perplexity"}}}), "GTJ0102", BEST, "measured here"),
    "smoothed labels without labels": (
        manifest("gan", {"loss": {"type": "hinge", "realLabel": 0.9}}),
        "GTJ0108",
        "spec.gan.loss.realLabel",
        "whose real samples have no label",
    ),
    "smoothed labels of a critic": (
        manifest("gan", {"loss": {"type": "wgan-gp", "realLabel": 0.9}}),
        "GTJ0108",
        "spec.gan.loss.realLabel",
        "no effect",
    ),
    "drift without a critic": (manifest("gan", {"loss": {"drift": 0.001}}), "GTJ0108", "spec.gan.loss.drift", "cannot drift"),
    "clipping without wgan": (
        manifest("gan", {"loss": {"type": "wgan-gp", "weightClip": 0.1}}),
        "GTJ0108",
        "spec.gan.loss.weightClip",
        "use wgan",
    ),
    "clipping with spectral norm": (
        manifest("gan", {"loss": {"type": "wgan"}, "discriminator": {"spectralNorm": True}}),
        "GTJ0108",
        "spec.gan.discriminator.spectralNorm",
        "divides the clipped weights",
    ),
    "clipping with R1": (
        manifest("gan", {"loss": {"type": "wgan"}, "regularization": {"r1": {}}}),
        "GTJ0108",
        "spec.gan.regularization.r1",
        "clipped already",
    ),
    "clipping with a penalty": (
        manifest("gan", {"loss": {"type": "wgan", "gradientPenalty": 5}}),
        "GTJ0108",
        "spec.gan.loss.gradientPenalty",
        "use wgan-gp",
    ),
    "R1 beside a penalty": (
        manifest("gan", {"loss": {"type": "wgan-gp"}, "regularization": {"r1": {}}}),
        "GTJ0108",
        "spec.gan.regularization.r1",
        "gradientPenalty: 0",
    ),
    "R1 with batch norm": (
        manifest("gan", {"discriminator": {"normalization": "batch"}, "regularization": {"r1": {}}}),
        "GTJ0108",
        "spec.gan.discriminator.normalization",
        "mixes the samples",
    ),
    "R1 at stage 3": (
        manifest("gan", {"regularization": {"r1": {}}}, deepspeed={"stage": 3}),
        "GTJ0104",
        "spec.deepspeed.stage",
        "R1 differentiates a gradient",
    ),
    "orthogonal at stage 3": (
        manifest("gan", {"regularization": {"orthogonal": 0.001}}, deepspeed={"stage": 3}),
        "GTJ0104",
        "spec.deepspeed.stage",
        "empty shards",
    ),
    "lazy R1 without betas": (
        manifest(
            "gan",
            {"regularization": {"r1": {"every": 4}}},
            training=training(optimizers={"default": {"name": "sgd", "betas": [0.9, 0.999]}}),
        ),
        "GTJ0108",
        "spec.gan.regularization.r1.every",
        "sgd has no betas",
    ),
    "attention of no map": (
        manifest("gan", {"generator": {"attention": [8, 16]}}, data=data("builtin:digits", images={"size": 16})),
        "GTJ0108",
        "spec.gan.generator.attention[1]",
        "its maps have 4 and 8",
    ),
    "attention of no power of two": (
        manifest("gan", {"discriminator": {"attention": [6]}}),
        "GTJ0108",
        "spec.gan.discriminator.attention[0]",
        "use 4, 8 or 16",
    ),
    "attention twice": (
        manifest("gan", {"discriminator": {"attention": [8, 8]}}),
        "GTJ0108",
        "spec.gan.discriminator.attention[1]",
        "twice",
    ),
    "attention of points": (
        manifest("gan", {**MLP_GAN, "generator": {"architecture": "mlp", "attention": [4]}}, data=data("builtin:ring")),
        "GTJ0108",
        "spec.gan.generator.attention",
        "no places",
    ),
    "augmented points": (
        manifest("gan", {**MLP_GAN, "augment": {}}, data=data("builtin:ring")),
        "GTJ0108",
        "spec.gan.augment",
        "learn from points",
    ),
    "policy twice": (
        manifest("gan", {"augment": {"policy": ["color", "color"]}}),
        "GTJ0102",
        "spec.gan.augment.policy[1]",
        "take one out",
    ),
    "micro-batch and group": (
        manifest("gan", DEVIATION, training=training(batch={"global": 64, "micro": 2})),
        "GTJ0103",
        "spec.training.batch.micro",
        "multiple of 4",
    ),
    "part of a worker and group": (
        manifest("gan", DEVIATION, training=training(batch={"global": 12}), compute={"workers": 2}),
        "GTJ0103",
        "spec.training.batch",
        "a micro-batch of 6",
    ),
    "elastic group and group": (
        manifest("gan", DEVIATION, compute={"workers": "2-4"}),
        "GTJ0103",
        "spec.training.batch",
        "needs training.batch.micro",
    ),
    "penalty without effect": (manifest("gan", {"loss": {"gradientPenalty": 5}}), "GTJ0108", "spec.gan.loss.gradientPenalty", "wgan-gp"),
    "layers of dcgan": (manifest("gan", {"generator": {"layers": 5}}), "GTJ0108", "spec.gan.generator.layers", "no effect"),
    "layers of conv": (manifest("vae", {"network": {"layers": 5}}), "GTJ0108", "spec.vae.network.layers", "no effect"),
    "vocabulary of bytes": (
        manifest("language", {"tokenizer": {"vocabularySize": 500}}),
        "GTJ0108",
        "spec.language.tokenizer.vocabularySize",
        "bpe",
    ),
    "dropout of llama": (
        manifest("language", {"network": {"architecture": "llama", "dropout": 0.1}}),
        "GTJ0108",
        "spec.language.network.dropout",
        "gpt2",
    ),
    "momentum of adam": (
        manifest(training=training(optimizers={"default": {"momentum": 0.9}})),
        "GTJ0108",
        "spec.training.optimizers.default.momentum",
        "betas[0]",
    ),
    "betas of sgd": (
        manifest(training=training(optimizers={"default": {"name": "sgd", "betas": [0.5, 0.9]}})),
        "GTJ0108",
        "spec.training.optimizers.default.betas",
        "sgd",
    ),
    "final ratio of constant": (
        manifest(training=training(schedule={"finalRatio": 0.1})),
        "GTJ0108",
        "spec.training.schedule.finalRatio",
        "cosine",
    ),
    "batch in deepspeed.config": (
        manifest(deepspeed={"config": {"train_batch_size": 8}}),
        "GTJ0108",
        "spec.deepspeed.config.train_batch_size",
        "spec.training.batch.global",
    ),
    "stage in deepspeed.config": (
        manifest(deepspeed={"config": {"zero_optimization": {"stage": 3}}}),
        "GTJ0108",
        "spec.deepspeed.config.zero_optimization.stage",
        "spec.deepspeed.stage",
    ),
    "two intervals": (manifest(checkpoints={"every": {"steps": 1, "minutes": 1}}), "GTJ0108", "spec.checkpoints.every", "one interval"),
    "no interval": (manifest(checkpoints={"every": {}}), "GTJ0108", "spec.checkpoints.every", "one of steps and minutes"),
    "two values": (
        manifest(pod={"env": [{"name": "A", "value": "x", "secretKeyRef": {"name": "s", "key": "k"}}]}),
        "GTJ0108",
        "spec.pod.env[0]",
        "both",
    ),
    "no value": (manifest(pod={"env": [{"name": "A"}]}), "GTJ0108", "spec.pod.env[0]", "needs a value"),
    "variable twice": (
        manifest(pod={"env": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]}),
        "GTJ0108",
        "spec.pod.env[1]",
        "twice",
    ),
    "threshold without a watch": (
        manifest(recovery={"lossSpike": {"zScore": 6}}),
        "GTJ0108",
        "spec.recovery.lossSpike.zScore",
        "use warn or rollback",
    ),
    "window without a watch": (
        manifest(recovery={"lossSpike": {"window": 50}}),
        "GTJ0108",
        "spec.recovery.lossSpike.window",
        "use warn or rollback",
    ),
    "rollbacks of nothing": (
        manifest(recovery={"onNonFiniteLoss": "halt", "maxRollbacks": 5}),
        "GTJ0108",
        "spec.recovery.maxRollbacks",
        "onNonFiniteLoss: halt; use rollback",
    ),
    "rollback to nowhere": (
        manifest(recovery={"onLossSpike": "rollback"}, checkpoints={"keep": {"last": 1}}),
        "GTJ0108",
        "spec.checkpoints.keep.last",
        "keep: {last: 2}",
    ),
    "muon of parts": (
        manifest(training=training(optimizers={"default": {"name": "muon"}}), deepspeed={"stage": 2}),
        "GTJ0104",
        "spec.training.optimizers.default.name",
        "whole matrices",
    ),
    "alpha of adam": (
        manifest(training=training(optimizers={"default": {"name": "adam", "alpha": 0.9}})),
        "GTJ0108",
        "spec.training.optimizers.default.alpha",
        "rmsprop",
    ),
    "eps of sgd": (
        manifest(training=training(optimizers={"default": {"name": "sgd", "eps": 1e-6}})),
        "GTJ0108",
        "spec.training.optimizers.default.eps",
        "sgd",
    ),
    "patience of a cosine": (
        manifest(training=training(schedule={"name": "cosine", "patience": 3})),
        "GTJ0108",
        "spec.training.schedule.patience",
        "plateau",
    ),
    "final ratio of a plateau": (
        manifest(training=training(schedule={"name": "plateau", "finalRatio": 0.1})),
        "GTJ0108",
        "spec.training.schedule.finalRatio",
        "plateau",
    ),
    "plateau of what nobody measures": (
        manifest(training=training(schedule={"name": "plateau", "metric": "heldout/los"})),
        "GTJ0102",
        "spec.training.schedule.metric",
        'did you mean "heldout/loss"?',
    ),
    "plateau of a gan": (
        manifest("gan", training=training(schedule={"name": "plateau"})),
        "GTJ0102",
        "spec.training.schedule.metric",
        "measured here: fid/digits",
    ),
    "plateau of held-out samples that there are not": (
        manifest(data={"source": "builtin:digits", "holdout": 0}, training=training(schedule={"name": "plateau"})),
        "GTJ0108",
        "spec.training.schedule.metric",
        "data.holdout is 0",
    ),
    "stopping by what nobody measures": (
        manifest(training=training(earlyStopping={"metric": "modes"})),
        "GTJ0102",
        "spec.training.earlyStopping.metric",
        "measured here: heldout/loss",
    ),
    "stopping by the bound of a flow": (
        manifest("diffusion", process(prediction="flow"), training=training(earlyStopping={"metric": "heldout/bits"})),
        "GTJ0102",
        "spec.training.earlyStopping.metric",
        "measured here",
    ),
    "unfreezing what is not frozen": (
        manifest(training=training(unfreeze=[{"step": 3, "patterns": ["*"]}])),
        "GTJ0108",
        "spec.training.unfreeze",
        "without freeze",
    ),
    "a part of no weights": (
        manifest(training=training(allowPartialWeights=True)),
        "GTJ0108",
        "spec.training.allowPartialWeights",
        "without initialWeights",
    ),
    "gradient checkpointing of a gan": (
        manifest("gan", {"regularization": {"r1": {}}}, training=training(gradientCheckpointing=True)),
        "GTJ0108",
        "spec.training.gradientCheckpointing",
        "differentiates it again",
    ),
    "gradient checkpointing of a vae": (
        manifest(training=training(gradientCheckpointing=True)),
        "GTJ0108",
        "spec.training.gradientCheckpointing",
        "no blocks",
    ),
    "compiling a gan": (
        manifest("gan", {"regularization": {"r1": {}}}, training=training(compile=True)),
        "GTJ0108",
        "spec.training.compile",
        "no second derivative",
    ),
    "compiling a gan without penalties": (manifest("gan", training=training(compile=True)), "GTJ0108", "spec.training.compile", "alike"),
    "compiling layers that are no blocks": (
        manifest(training=training(compile=True)),
        "GTJ0108",
        "spec.training.compile",
        "repeated blocks",
    ),
    "compiling what is split": (
        manifest("diffusion", training=training(compile=True), deepspeed={"stage": 3}),
        "GTJ0104",
        "spec.deepspeed.stage",
        "gathers the weights",
    ),
    "compiling layers that are listened to": (
        manifest("diffusion", training=training(compile=True, sparsity={"activations": 0.1, "layers": ["*"]})),
        "GTJ0108",
        "spec.training.compile",
        "listens",
    ),
    "compiling layers that a teacher listens to": (
        manifest("diffusion", training=training(compile=True, distillation={"teacher": "s3://b/x", "features": ["*"]})),
        "GTJ0108",
        "spec.training.compile",
        "distillation.features",
    ),
    "compiling for pictures of many shapes": (
        manifest("diffusion", data={"source": "s3://b/x", "images": {"size": 128, "buckets": {}}}, training=training(compile=True)),
        "GTJ0108",
        "spec.training.compile",
        "data.images.buckets",
    ),
    "compiling for rows of many lengths": (
        manifest("language", {"method": "dpo"}, data={"source": "builtin:stdlib-preferences"}, training=training(compile=True)),
        "GTJ0108",
        "spec.training.compile",
        "method: dpo",
    ),
    "compiling beside a prefix": (
        manifest("language", {"base": {"source": "s3://b/x"}, "adapter": {"type": "prefix"}}, training=training(compile=True)),
        "GTJ0108",
        "spec.training.compile",
        "prefix",
    ),
    "activations of no layers": (
        manifest(training=training(sparsity={"activations": 0.1})),
        "GTJ0108",
        "spec.training.sparsity.activations",
        "nobody says of which layers",
    ),
    "layers that nobody looks at": (
        manifest(training=training(sparsity={"layers": ["autoencoder.encoder.*"]})),
        "GTJ0108",
        "spec.training.sparsity.layers",
        "without activations",
    ),
    "teacher of a gan": (
        manifest("gan", training=training(distillation={"teacher": "s3://b/x"})),
        "GTJ0108",
        "spec.training.distillation",
        "distillation of a gan",
    ),
    "teacher at a root": (
        manifest("diffusion", training=training(distillation={"teacher": "s3://bucket"})),
        "GTJ0107",
        "spec.training.distillation.teacher",
        "lie in a",
    ),
    "no time at all": (manifest(recovery={"stallTimeout": "0s"}), "GTJ0102", "spec.recovery.stallTimeout", "30m"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    given, code, path, words = REFUSED[name]
    problems = [problem.error() for problem in parse(given)[1]]
    found = [problem for problem in problems if (problem.code, problem.where) == (code, path)]
    assert len(found) == 1, [problem.line() for problem in problems]
    assert words in found[0].line()
    assert found[0].exit_code == 3


# Both networks of a GAN disagree with such data.
ALONE = set(REFUSED) - {"dcgan on points", "mlp on images", "mlp on a folder"}


@pytest.mark.parametrize("name", sorted(ALONE))
def test_one_mistake_is_one_problem(name: str) -> None:
    problems = parse(REFUSED[name][0])[1]
    assert len(problems) == 1, [problem.error().line() for problem in problems]


ACCEPTED: dict[str, dict[str, Any]] = {
    "gan": manifest("gan"),
    "vae": manifest("vae"),
    "diffusion": manifest("diffusion"),
    "language": manifest("language"),
    "custom": manifest("custom", {"objective": "mine.model:build"}, training=training(optimizers={"policy": {}})),
    "spikes looked for": manifest(
        recovery={"onLossSpike": "rollback", "lossSpike": {"zScore": 6, "window": 50}, "onNonFiniteLoss": "halt", "maxRollbacks": 5},
        checkpoints={"keep": {"last": 2}},
    ),
    "spikes told": manifest(recovery={"onLossSpike": "warn"}, checkpoints={"keep": {"last": 1}}),
    "mlp gan on the ring": manifest("gan", MLP_GAN, data=data("builtin:ring"), evaluation={"metrics": ["modes"]}),
    "mlp vae on the ring": manifest("vae", {"network": {"architecture": "mlp", "layers": 5}}, data=data("builtin:ring")),
    "gan at stage 2": manifest("gan", deepspeed={"stage": 2}),
    "vae at stage 3": manifest("vae", deepspeed={"stage": 3}),
    "critic without penalty": manifest(
        "gan", {"loss": {"type": "wgan-gp", "gradientPenalty": 0}, "discriminator": {"normalization": "batch"}}
    ),
    "no penalty, said so": manifest("gan", {"loss": {"type": "hinge", "gradientPenalty": 0}}),
    "R1 of every step with sgd": manifest(
        "gan", {"regularization": {"r1": {"every": 1}, "orthogonal": 0.001}}, training=training(optimizers={"default": {"name": "sgd"}})
    ),
    "lazy R1, the generator with sgd": manifest(
        "gan", {"regularization": {"r1": {}}}, training=training(optimizers={"generator": {"name": "sgd"}})
    ),
    "R1 in place of the penalty": manifest("gan", {"loss": {"type": "wgan-gp", "gradientPenalty": 0}, "regularization": {"r1": {}}}),
    "clipped": manifest("gan", {"loss": {"type": "wgan", "weightClip": 0.1, "drift": 0.001}, "regularization": {"orthogonal": 0.001}}),
    "everything of images": manifest(
        "gan",
        {
            "generator": {"attention": [4, 16], "spectralNorm": True},
            "discriminator": {"attention": [8], "spectralNorm": True, "minibatchDeviation": {"group": 8}},
            "loss": {"type": "minimax", "realLabel": 0.9},
            "augment": {"policy": ["cutout", "color"]},
        },
    ),
    "groups of an elastic group": manifest(
        "gan", DEVIATION, training=training(batch={"global": 64, "micro": 8}), compute={"workers": "2-4"}
    ),
    "every optimizer": manifest("gan", training=training(optimizers={"generator": {}, "discriminator": {}, "default": {}})),
    "elastic": manifest(compute={"workers": "2-8"}),
    "accumulation": manifest(training=training(batch={"global": 64, "micro": 4}), compute={"workers": 2}),
    "deepest unet": manifest("diffusion", {"network": {"multipliers": [1, 2, 2]}}, data=data("builtin:digits", images={"size": 8})),
    "text": manifest(
        "diffusion",
        {"conditioning": {"type": "text", "length": 24}, "sampler": {"guidance": 3.0}},
        evaluation={"prompts": ["a red circle", "a blue square"]},
    ),
    "class": manifest("diffusion", {"conditioning": {"type": "class", "dropout": 0}}),
    "transformer": manifest("diffusion", {"network": {"architecture": "dit", "hidden": 64, "heads": 4, "layers": 2, "patch": 4}}),
    "attention where there are maps": manifest(
        "diffusion", {"network": {"attentionResolutions": [16, 8]}}, data=data("builtin:shapes", images={"size": 16})
    ),
    "an elastic job in a queue that scales": manifest(compute={"workers": "1-2", "queue": "team", "queueElastic": True}),
    "every change of pictures": manifest(
        "diffusion",
        data=data(
            "builtin:shapes",
            images={"augment": ["horizontalFlip", "rotation", "randomCrop", "colorJitter"], "strength": {"rotation": 30, "hue": 0.1}},
        ),
    ),
    "every weight": manifest(
        "diffusion",
        process(prediction="v", schedule="scaled-linear", minSnrGamma=5, zeroTerminalSnr=True, learnedVariance=True),
        evaluation={"metrics": ["loss", "bits"]},
    ),
    "the image at the last step": manifest("diffusion", process(prediction="sample", zeroTerminalSnr=True)),
    "flow": manifest(
        "diffusion", process(prediction="flow", timeSampling="logit-normal", shift=3, timesteps=20) | {"sampler": {"steps": 30}}
    ),
    "learned schedule": manifest(
        "diffusion",
        process(schedule="learned") | {"sampler": {"eta": 1}},
        training=training(optimizers={"noise_schedule": {}, "denoiser": {}}),
        checkpoints={"keep": {"best": {"metric": "heldout/bits"}}},
    ),
    "few pictures": manifest(
        "diffusion",
        data=data("builtin:digits", holdout=0),
        evaluation={"metrics": ["instance"]},
        checkpoints={"keep": {"best": {"metric": "heldout/instance"}}},
        training=training(earlyStopping={"metric": "heldout/instance", "patience": 3}),
    ),
    "annealing": manifest(
        body={"loss": {"annealing": {"type": "cyclical", "steps": 100, "cycles": 2}, "freeBits": 0.1}},
        evaluation={"metrics": ["loss", "active_units"]},
    ),
    "half precision, a plateau and an end": manifest(
        training=training(
            precision="fp16",
            schedule={"name": "plateau", "warmupSteps": 5, "patience": 2, "cooldown": 1, "minRatio": 0.01},
            earlyStopping={"metric": "heldout/loss", "patience": 8, "minDelta": 0.01},
        )
    ),
    "muon": manifest("language", training=training(optimizers={"model": {"name": "muon", "eps": 1e-6, "muonMomentum": 0.9}})),
    "smoothing of rmsprop": manifest(training=training(optimizers={"default": {"name": "rmsprop", "alpha": 0.9, "eps": 1e-6}})),
    "layer by layer": manifest(
        training=training(freeze=["autoencoder.encoder", "*.bias"], unfreeze=[{"step": 5, "patterns": ["autoencoder.encoder.*"]}])
    ),
    "blocks again": manifest("diffusion", training=training(gradientCheckpointing=True)),
    "compiled": manifest("diffusion", training=training(compile=True, gradientCheckpointing=True)),
    "compiled text": manifest("language", training=training(compile=True), deepspeed={"stage": 2}),
    "compiled autoencoder": manifest(body={"network": {"architecture": "autoencoder-kl"}}, training=training(compile=True)),
    "a part of the weights": manifest(training=training(initialWeights="s3://b/x", allowPartialWeights=True)),
    "sparse": manifest(training=training(sparsity={"weights": 0.1, "activations": 0.1, "layers": ["*"]}, syncBatchNorm=True)),
    "taught": manifest("language", training=training(distillation={"teacher": "s3://b/x", "weight": 1.0})),
    "folder": manifest(data=data("file:///data/faces")),
    "dots within a name": manifest(data=data("file:///data/a..b")),
    "a split held out": manifest(data=data("s3://b/x", split={"train": "train-small", "validation": "dev.en"})),
    "another source held out": manifest(data=data("s3://b/x", split={"validation": "hf://datasets/org/name@v1"})),
    "initial weights": manifest(training=training(initialWeights="az://account/c/model.safetensors"), checkpoints={"resumeFrom": "none"}),
    "bucket folder": manifest(checkpoints={"uri": "s3://bucket/run", "resumeFrom": "s3://bucket/run/steps/000000000100-a1"}),
    "hub dataset": manifest(data=data("hf://owner/name")),
    "language from a folder": manifest("language", data=data("file:///texts", text={"field": "body"})),
    "best": manifest("language", checkpoints={"keep": {"best": {"metric": "heldout/perplexity"}}}),
    "most modes": manifest(
        "gan", MLP_GAN, data=data("builtin:ring"), checkpoints={"keep": {"best": {"metric": "modes/quality", "mode": "max"}}}
    ),
    "minutes": manifest(checkpoints={"every": {"minutes": 5}}),
    "secret": manifest(pod={"env": [{"name": "A", "secretKeyRef": {"name": "s", "key": "k"}}]}),
    "free config": manifest(deepspeed={"config": {"zero_optimization": {"reduce_bucket_size": 1000}}}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    job, problems = parse(ACCEPTED[name])
    assert [problem.error().line() for problem in problems] == []
    assert job is not None


@pytest.mark.parametrize("name", ACCEPTED)
def test_written_out_defaults_change_nothing(name: str) -> None:
    """The API server stores every default; the frozen job of a run folder does too."""
    job, _ = parse(ACCEPTED[name])
    assert job is not None
    full = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    again, problems = parse(full)
    assert problems == []
    assert again == job


def test_workers_of_the_command_line_replace_those_of_the_manifest() -> None:
    job = Job.model_validate(manifest(compute={"workers": 2}))
    assert [problem.code for problem in check(job, workers=5)] == ["GTJ0103"]
    assert check(job, workers=4) == []


def test_neither_family_nor_null() -> None:
    given = manifest()
    del given["spec"]["vae"]
    (problem,) = parse(given)[1]
    assert (problem.code, problem.path) == ("GTJ0106", ("spec",))


def test_nearest_batch_sizes_are_legal_themselves() -> None:
    for workers in ("3-7", "5", "2-9", "6-10"):
        for micro in (None, 3, 5):
            batch = {"global": 101} | ({"micro": micro} if micro else {})
            given = manifest(training=training(batch=batch), compute={"workers": workers if "-" in workers else int(workers)})
            (problem,) = parse(given)[1]
            for size in problem.how.removeprefix("nearest sizes that do: ").split(" or "):
                given["spec"]["training"]["batch"]["global"] = int(size)
                assert parse(given)[1] == []
