"""Rules between parts of a spec that are neither the family's nor its data's: batch and workers, stage, beginnings, metrics, spikes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import lcm

from trainjobs.api.job import Spec
from trainjobs.api.metrics import METRICS, NEVER_HELD, SCOPES, Asked, answers, listing, measured_by
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.uris import builtin

_EACH = "(self.compute.gpusPerWorker > 1 ? self.compute.gpusPerWorker : 1)"
_MICRO = "(has(self.training.batch.micro) ? self.training.batch.micro : 1)"
_BEST = "self.checkpoints.keep.best"


def batch_divides(spec: Spec) -> Iterator[Breach]:
    """The global batch is constant, so it divides by each end of an elastic range of workers, by their GPUs, and by their micro-batches.

    Between its ends an elastic group only ever takes sizes that divide it, too: `Batch.sizes`.
    """
    batch = spec.training.batch
    low, high = spec.compute.worker_range
    if low > high:
        return
    each = spec.compute.each
    micro = (batch.micro or 1) * each
    unit = lcm(low * micro, high * micro)
    if batch.global_ % unit == 0:
        return
    down, up = batch.global_ // unit * unit, (batch.global_ // unit + 1) * unit
    groups = (f"{low} workers" if low == high else f"{low} and by {high} workers") + (f" of {each} GPUs" if each > 1 else "")
    by = groups if batch.micro is None else f"{groups} of micro-batch {micro}"
    legal = listed([size for size in (down, up) if size])
    fitting = batch.sizes(low, high, each) if low < high else ()
    also = f"; or, for this batch, of the numbers of workers in that range: {listed(fitting[:16])}" if fitting else ""
    yield Breach(
        ("training", "batch", "global"),
        f"a global batch of {batch.global_} does not divide by {by}",
        f"every {'GPU' if each > 1 else 'worker'} takes the same number of samples in each step",
        f"nearest sizes that do: {legal}{also}",
        beside=("compute", "workers"),
    )


def stage_allows(spec: Spec) -> Iterator[Breach]:
    if spec.gan is None or spec.deepspeed.stage != 3:
        return
    why = "stage 3 splits the weights themselves, and two networks that take turns would gather each other's at every step"
    if spec.gan.loss.type == "wgan-gp":
        why = "the gradient penalty differentiates a gradient, and stage 3 has let go of the weights by the second backward pass"
    elif spec.gan.regularization.r1 is not None:
        why = "R1 differentiates a gradient, and stage 3 has let go of the weights by the second backward pass"
    elif spec.gan.regularization.path_length is not None:
        why = "path length differentiates a gradient, and stage 3 has let go of the weights by the second backward pass"
    elif spec.gan.progressive is not None:
        why = "layers grow in while it trains, and stage 3 has cut the weights of all of them before the first step"
    elif spec.gan.regularization.orthogonal:
        why = "orthogonal regularisation multiplies whole weights, and stage 3 leaves empty shards of them between two passes"
    yield Breach(("deepspeed", "stage"), "a GAN cannot train at ZeRO stage 3", why, "use stage 0, 1, 2 or auto")


def muon_is_whole(spec: Spec) -> Iterator[Breach]:
    """Muon needs whole matrices, of which every rank has a part only from stage 1 on."""
    if spec.deepspeed.stage in ("auto", 0):
        return
    for network, optimizer in spec.training.optimizers.items():
        if optimizer.name == "muon":
            what, why = f"muon at ZeRO stage {spec.deepspeed.stage}", "it makes whole matrices orthogonal, and from stage 1 on they are cut"
            yield Breach(("training", "optimizers", network, "name"), what, why, "use deepspeed.stage: 0 or auto, or another optimizer")


def blocks_compute_again(spec: Spec) -> Iterator[Breach]:
    if not spec.training.gradient_checkpointing or (spec.gan is None and spec.vae is None):
        return
    family = "gan" if spec.gan is not None else "vae"
    why = "its networks have no blocks that could be computed again"
    if spec.gan is not None and (spec.gan.loss.type == "wgan-gp" or spec.gan.regularization.r1 is not None):
        why = "a penalty on a gradient differentiates it again, through blocks that would be computed a third time"
    place = ("training", "gradientCheckpointing")
    yield Breach(place, f"gradientCheckpointing has no effect with a {family}", why, "take it out", on_key=True)


def teacher_of_a_kind(spec: Spec) -> Iterator[Breach]:
    if spec.training.distillation is None or spec.diffusion is not None or spec.language is not None or len(spec.families) != 1:
        return
    why = "a teacher is asked for outputs at the same inputs: of a language model tokens, of a diffusion model noise"
    how = "take it out" + (", and give your objective a frozen network (docs/how-to/custom.md)" if spec.custom is not None else "")
    yield Breach(("training", "distillation"), f"distillation of a {spec.family}", why, how, on_key=True)


def sampler_is_shortened(spec: Spec) -> Iterator[Breach]:
    """Progressive distillation is of steps between timesteps, in terms of the image."""
    if spec.training.distillation is None or not spec.training.distillation.progressive or len(spec.families) != 1:
        return
    place, diffusion = ("training", "distillation", "progressive"), spec.diffusion
    if diffusion is None:
        yield Breach(place, f"progressive distillation of a {spec.family}", "there is no sampler to be halved", "take it out", on_key=True)
        return
    process, sampler = diffusion.process, diffusion.sampler
    if process.prediction not in ("v", "sample") or process.schedule == "learned" or process.learned_variance:
        why = "the image does not follow from the noise where there is nothing else, and the steps are those of a fixed schedule"
        yield Breach(place, "progressive distillation of this process", why, "use prediction: v or sample, without learnedVariance")
    elif process.timesteps % (2 * sampler.steps) or sampler.eta != 0:
        what = f"a sampler of {sampler.steps} steps with eta {sampler.eta:g}, of {process.timesteps} timesteps"
        why = "each step is two of the teacher's, which has twice as many, and no noise is added between them"
        how = "write sampler.steps of which twice as many divide process.timesteps, and eta: 0"
        yield Breach(place, what, why, how, beside=("diffusion", "sampler", "steps"))


def one_beginning(spec: Spec) -> Iterator[Breach]:
    if spec.training.initial_weights is not None and spec.checkpoints.resume_from not in ("latest", "none"):
        what = "spec.training.initialWeights beside a checkpoint in spec.checkpoints.resumeFrom"
        why = "both say with which weights the run begins"
        how = "keep resumeFrom to go on at that checkpoint's step with its optimizer, initialWeights to begin at step 0 with a new one"
        yield Breach(("training", "initialWeights"), what, why, how, on_key=True)


def metric_suits(asked: Asked, spec: Spec) -> Iterator[Breach]:
    measured = any(metric.suits(spec.families, builtin(spec.data.uri), spec.evaluation.features) for metric in answers(asked))
    if asked in spec.evaluation.metrics and not measured:
        yield Breach(("evaluation", "metrics"), f"{asked} {SCOPES[asked]}", how="take it out of spec.evaluation.metrics")


def best_is_measured(spec: Spec) -> Iterator[Breach]:
    """A metric that nobody measures would silently keep no checkpoint as the best. What a custom objective measures only it knows."""
    best = spec.checkpoints.keep.best
    if best is None or spec.custom is not None or len(spec.families) != 1:
        return
    data, features = builtin(spec.data.uri), spec.evaluation.features
    known = [metric.name for metric in METRICS if metric.asked and metric.suits(spec.families, data, features)]
    if best.metric not in known:
        why = f"measured here: {listed(known, 'and')}" if known else "nothing is measured that could choose the best"
        how = did_you_mean(best.metric, known) or ("" if known else "take keep.best out")
        yield Breach(("checkpoints", "keep", "best", "metric"), f'"{best.metric}" is not measured', why, how)


def some_have_no_bound(spec: Spec) -> Iterator[Breach]:
    if spec.diffusion is None or (spec.diffusion.process.prediction != "flow" and spec.diffusion.latents is None):
        return
    of, why = "prediction: flow", "a flow is trained on no bound of the likelihood"
    if spec.diffusion.latents is not None:
        of, why = "latents", "the bound is that of pictures, and latents are none"
    if "bits" in spec.evaluation.metrics:
        yield Breach(("evaluation", "metrics"), f"bits with {of}", why, "take it out of spec.evaluation.metrics")
    best = spec.checkpoints.keep.best
    if best is not None and best.metric == "heldout/bits":
        place = ("checkpoints", "keep", "best", "metric")
        yield Breach(place, f"heldout/bits is not measured with {of}", why, "use heldout/loss")


def best_has_samples(spec: Spec) -> Iterator[Breach]:
    """With nothing held out there is no held-out score, and nothing would ever be the best."""
    best = spec.checkpoints.keep.best
    if best is None or best.metric == NEVER_HELD:
        return
    if best.metric.startswith("heldout/") and spec.data.holdout == 0 and spec.data.split.validation is None:
        why = "data.holdout is 0: no sample is held out"
        path = ("checkpoints", "keep", "best", "metric")
        yield Breach(path, f"{best.metric} cannot be measured", why, "write a share such as `holdout: 0.05`, or take keep.best out")


def rollback_has_where_to(spec: Spec) -> Iterator[Breach]:
    """A batch that spoils the weights shows in the next step's loss: a checkpoint between the two is spoilt, the one before is needed."""
    if spec.recovery.on_loss_spike == "rollback" and spec.checkpoints.keep.last < 2:
        path, what = ("checkpoints", "keep", "last"), "recovery.onLossSpike: rollback needs the last two checkpoints"
        why = "the newest may have been taken just before the loss showed what had gone wrong"
        yield Breach(path, what, why, "write `keep: {last: 2}` or more")


RULES = (
    Rule(
        "spec",
        "GTJ0103",
        batch_divides,
        # An elastic group divides the batch at either end of its range; a range that overflows divides nothing.
        f"string(self.compute.workers).split('-').all(n, self.training.batch.global % (int(n) * {_EACH} * {_MICRO}) == 0)",
        "training.batch.global does not divide by the workers, their GPUs and training.batch.micro",
    ),
    Rule(
        "spec",
        "GTJ0104",
        stage_allows,
        "!has(self.gan) || self.deepspeed.stage != 3",
        "a GAN cannot train at ZeRO stage 3: use stage 0, 1, 2 or auto",
    ),
    Rule(
        "spec",
        "GTJ0104",
        muon_is_whole,
        "self.deepspeed.stage == 'auto' || self.deepspeed.stage == 0 || "
        "self.training.optimizers.all(name, self.training.optimizers[name].name != 'muon')",
        "muon at ZeRO stage 1 to 3: it makes whole matrices orthogonal, use stage 0 or auto",
    ),
    Rule(
        "spec",
        "GTJ0108",
        blocks_compute_again,
        "!self.training.gradientCheckpointing || !(has(self.gan) || has(self.vae))",
        "training.gradientCheckpointing has no effect with a gan or a vae",
    ),
    Rule(
        "spec",
        "GTJ0108",
        teacher_of_a_kind,
        "!has(self.training.distillation) || has(self.diffusion) || has(self.language)",
        "training.distillation is for language and diffusion models",
    ),
    Rule(
        "spec",
        "GTJ0108",
        sampler_is_shortened,
        "!has(self.training.distillation) || !self.training.distillation.progressive || (has(self.diffusion) && "
        "self.diffusion.process.prediction in ['v', 'sample'] && self.diffusion.process.schedule != 'learned' && "
        "!self.diffusion.process.learnedVariance && self.diffusion.sampler.eta == 0.0 && "
        "self.diffusion.process.timesteps % (2 * self.diffusion.sampler.steps) == 0)",
        "training.distillation.progressive needs a diffusion model that predicts v or sample, eta: 0, and a sampler.steps of which twice "
        "as many divide process.timesteps",
    ),
    Rule(
        "spec",
        "GTJ0108",
        one_beginning,
        "!has(self.training.initialWeights) || self.checkpoints.resumeFrom in ['latest', 'none']",
        "training.initialWeights beside a checkpoint in checkpoints.resumeFrom: both say with which weights the run begins",
    ),
    *(
        Rule(
            "spec",
            "GTJ0108",
            partial(metric_suits, asked),
            " || ".join(dict.fromkeys([f"!('{asked}' in self.evaluation.metrics)", *(metric.cel for metric in answers(asked))])),
            f"{asked} {scope}",
        )
        for asked, scope in SCOPES.items()
    ),
    Rule(
        "spec",
        "GTJ0102",
        best_is_measured,
        f"has(self.custom) || !has({_BEST}) || {measured_by(f'{_BEST}.metric')}",
        f"checkpoints.keep.best.metric is not measured: {listing()}",
    ),
    Rule(
        "spec",
        "GTJ0108",
        some_have_no_bound,
        "!has(self.diffusion) || (self.diffusion.process.prediction != 'flow' && !has(self.diffusion.latents)) || "
        f"(!('bits' in self.evaluation.metrics) && (!has({_BEST}) || {_BEST}.metric != 'heldout/bits'))",
        "bits with prediction: flow or with latents, which are trained on no bound of the likelihood of pictures",
    ),
    Rule(
        "spec",
        "GTJ0108",
        best_has_samples,
        f"!has({_BEST}) || !{_BEST}.metric.startsWith('heldout/') || {_BEST}.metric == '{NEVER_HELD}' || self.data.holdout > 0.0 || "
        "has(self.data.split.validation)",
        "checkpoints.keep.best.metric cannot be measured: data.holdout is 0",
    ),
    Rule(
        "spec",
        "GTJ0108",
        rollback_has_where_to,
        "self.recovery.onLossSpike != 'rollback' || self.checkpoints.keep.last >= 2",
        "recovery.onLossSpike: rollback needs checkpoints.keep.last of at least 2",
    ),
)
