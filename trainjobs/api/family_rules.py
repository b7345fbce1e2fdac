"""How a family's networks, its losses and its data must go together. Called by `rules.check`, in the same manner."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.data import Images, Text
from trainjobs.api.fields import Model
from trainjobs.api.gan import Discriminator, GanLoss, Generator
from trainjobs.api.job import Job
from trainjobs.api.language import Tokenizer, Transformer
from trainjobs.api.problem import Problem, did_you_mean, listed
from trainjobs.api.recovery import LossSpike, Recovery
from trainjobs.api.shape import Path
from trainjobs.api.training import Optimizer, Schedule
from trainjobs.api.uris import BUILTINS, builtin
from trainjobs.api.vae import VaeNetwork

SPEC: Path = ("spec",)


def family_fits_data(job: Job) -> Iterator[Problem]:
    """Language learns from text, mlp networks from points, every other network from images."""
    name = builtin(job.spec.data.source)
    kind = BUILTINS.get(name, "") if name else "other"
    for path, architecture, wanted in learners(job):
        if kind and kind != wanted and not (kind == "other" and wanted != "point"):
            good = [f"builtin:{known}" for known, its in BUILTINS.items() if its == wanted] + (
                ["a file:// folder"] if wanted != "point" else []
            )
            have = f"{job.spec.data.source} holds {kind}s" if kind != "other" else "points come from builtin:ring only"
            other = {"image": "dcgan" if job.spec.gan else "conv", "point": "mlp"}.get(kind if kind != "other" else "image")
            swap = f", or architecture: {other}" if other and (job.spec.gan or job.spec.vae) else ""
            yield Problem("GTJ0108", path, f"{architecture} learns from {wanted}s", have, f"use data.source: {listed(good)}{swap}")


def learners(job: Job) -> Iterator[tuple[Path, str, str]]:
    """Path, architecture and kind of data of each network that sees data."""
    spec, kinds = job.spec, {"mlp": "point"}
    if spec.gan is not None:
        generator, discriminator = spec.gan.generator.architecture, spec.gan.discriminator.architecture
        yield (*SPEC, "gan", "generator", "architecture"), generator, kinds.get(generator, "image")
        if discriminator == generator:  # otherwise networks_fit_together speaks
            yield (*SPEC, "gan", "discriminator", "architecture"), discriminator, kinds.get(discriminator, "image")
    if spec.vae is not None:
        yield (*SPEC, "vae", "network", "architecture"), spec.vae.network.architecture, kinds.get(spec.vae.network.architecture, "image")
    if spec.diffusion is not None:
        yield (*SPEC, "diffusion"), "the unet of a diffusion model", "image"
    if spec.language is not None:
        yield (*SPEC, "language"), "a language model", "text"


def data_fields_fit(job: Job) -> Iterator[Problem]:
    data, path = job.spec.data, (*SPEC, "data")
    wanted = {kind for _, _, kind in learners(job)}
    if wanted and "image" not in wanted and data.images != Images():
        yield Problem(
            "GTJ0108", (*path, "images"), f"spec.data.images with a model of {wanted.pop()}s", how="take spec.data.images out", on_key=True
        )
    elif wanted and "text" not in wanted and data.text != Text():
        yield Problem(
            "GTJ0108", (*path, "text"), f"spec.data.text with a model of {wanted.pop()}s", how="take spec.data.text out", on_key=True
        )


def networks_fit_together(job: Job) -> Iterator[Problem]:
    gan, vae = job.spec.gan, job.spec.vae
    if gan is not None and gan.generator.architecture != gan.discriminator.architecture:
        what = f"a {gan.discriminator.architecture} discriminator cannot judge what a {gan.generator.architecture} generator makes"
        path = (*SPEC, "gan", "discriminator", "architecture")
        yield Problem("GTJ0108", path, what, "one handles images, the other points", f"use {gan.generator.architecture} for both")
    if vae is not None and vae.network.architecture == "mlp" and vae.loss.reconstruction == "bce":
        path = (*SPEC, "vae", "loss", "reconstruction")
        yield Problem(
            "GTJ0108", path, "bce cannot score points", "a Bernoulli likelihood needs values from 0 to 1, such as pixels", "use mse"
        )


def critic_without_batch_norm(job: Job) -> Iterator[Problem]:
    gan = job.spec.gan
    if gan is None or gan.loss.type != "wgan-gp" or gan.loss.gradient_penalty == 0 or gan.discriminator.normalization != "batch":
        return
    why = "the penalty is on each sample's own gradient, and batch normalisation mixes the samples (Gulrajani et al., 2017, section 4)"
    path = (*SPEC, "gan", "discriminator", "normalization")
    yield Problem("GTJ0108", path, "a critic with gradient penalty takes no batch normalisation", why, "use normalization: none")


def unet_fits_images(job: Job) -> Iterator[Problem]:
    if job.spec.diffusion is None:
        return
    size, levels = job.spec.data.images.size, len(job.spec.diffusion.network.multipliers)
    most = (size // 2).bit_length()
    if levels > most:
        what = f"{levels} multipliers halve images of {size} pixels {levels - 1} times, to {size >> (levels - 1)}"
        how = f"give at most {most} multipliers, or larger images"
        path = (*SPEC, "diffusion", "network", "multipliers")
        yield Problem("GTJ0108", path, what, "the lowest resolution must keep 2 pixels a side", how)


def heads_divide_hidden(job: Job) -> Iterator[Problem]:
    if job.spec.language is None:
        return
    network, path = job.spec.language.network, (*SPEC, "language", "network", "heads")
    step = 2 if network.architecture == "llama" else 1
    legal = [heads for heads in range(1, network.hidden + 1) if network.hidden % heads == 0 and network.hidden // heads % step == 0]
    if network.heads not in legal:
        near = sorted(sorted(legal, key=lambda heads: abs(heads - network.heads))[:3])
        why = "every head takes an equal share" + (", and rotary positions need an even one" if step == 2 else "")
        what = f"hidden {network.hidden} does not divide into {network.heads} heads"
        yield Problem("GTJ0108", path, what, why, f"nearest numbers that do: {listed(near)}" if near else "use an even hidden")


def metrics_exist(job: Job) -> Iterator[Problem]:
    spec, path = job.spec, (*SPEC, "evaluation", "metrics")
    if "perplexity" in spec.evaluation.metrics and spec.language is None and spec.custom is None:
        yield Problem("GTJ0108", path, "perplexity is a measure of language models", how="take it out of spec.evaluation.metrics")
    if "modes" in spec.evaluation.metrics and builtin(spec.data.source) != "ring":
        yield Problem("GTJ0108", path, "modes counts the modes of builtin:ring", how="take it out of spec.evaluation.metrics")


def best_is_measured(job: Job) -> Iterator[Problem]:
    """A metric that nobody measures would silently keep no checkpoint as the best."""
    spec, best = job.spec, job.spec.checkpoints.keep.best
    if best is None or spec.custom is not None:
        return
    known = [] if spec.gan is not None else ["heldout/loss"]
    known += ["heldout/perplexity"] if spec.language is not None else []
    known += ["modes", "modes/quality"] if builtin(spec.data.source) == "ring" else []
    if best.metric not in known:
        why = f"measured here: {listed(known, 'and')}" if known else "nothing is measured that could choose the best"
        how = did_you_mean(best.metric, known) or ("" if known else "take keep.best out")
        path = (*SPEC, "checkpoints", "keep", "best", "metric")
        yield Problem("GTJ0102", path, f'"{best.metric}" is not measured', why, how)


def fields_have_effect(job: Job) -> Iterator[Problem]:
    """A field that would be read by nobody is refused: whoever wrote it expects something of it."""
    spec = job.spec
    if spec.gan is not None:
        loss = spec.gan.loss
        if loss.type != "wgan-gp" and loss.gradient_penalty != 0:
            yield from idle(loss, GanLoss(), "gradientPenalty", ("gan", "loss"), f"loss {loss.type}; use wgan-gp")
        for name, network, plain in (
            ("generator", spec.gan.generator, Generator()),
            ("discriminator", spec.gan.discriminator, Discriminator()),
        ):
            if network.architecture == "dcgan":
                yield from idle(network, plain, "layers", ("gan", name), "dcgan, whose depth follows from the image size")
    if spec.vae is not None and spec.vae.network.architecture == "conv":
        yield from idle(spec.vae.network, VaeNetwork(), "layers", ("vae", "network"), "conv, whose depth follows from the image size")
    if spec.language is not None and spec.language.tokenizer.type == "byte":
        yield from idle(spec.language.tokenizer, Tokenizer(), "vocabularySize", ("language", "tokenizer"), "type byte; use bpe")
    if spec.language is not None and spec.language.network.architecture == "llama":
        yield from idle(spec.language.network, Transformer(), "dropout", ("language", "network"), "llama; use gpt2")
    for name, optimizer in spec.training.optimizers.items():
        place = ("training", "optimizers", name)
        if optimizer.name in ("adam", "adamw"):
            yield from idle(optimizer, Optimizer(), "momentum", place, f"{optimizer.name}, whose momentum is betas[0]")
        else:
            yield from idle(optimizer, Optimizer(), "betas", place, optimizer.name)
    recovery = spec.recovery
    if recovery.on_loss_spike == "ignore":
        for field in ("zScore", "window"):
            beside = "onLossSpike: ignore; use warn or rollback"
            yield from idle(recovery.loss_spike, LossSpike(), field, ("recovery", "lossSpike"), beside)
    if recovery.on_non_finite_loss == "halt" and recovery.on_loss_spike != "rollback":
        yield from idle(recovery, Recovery(), "maxRollbacks", ("recovery",), "onNonFiniteLoss: halt; use rollback")
    if spec.training.schedule.name == "constant":
        yield from idle(
            spec.training.schedule, Schedule(), "finalRatio", ("training", "schedule"), "a constant schedule; use linear or cosine"
        )


def idle(part: Model, plain: Model, field: str, place: tuple[str, ...], beside: str) -> Iterator[Problem]:
    """A problem when `field` differs from its default."""
    if part.model_dump(by_alias=True)[field] != plain.model_dump(by_alias=True)[field]:
        what = f"{field} has no effect with {beside}"
        yield Problem(
            "GTJ0108", (*SPEC, *place, field), what, how=f"or take {field} out" if ";" in beside else f"take {field} out", on_key=True
        )
