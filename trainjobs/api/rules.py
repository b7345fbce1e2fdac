"""How the parts of a job must go together. The CRD's validation rules mirror these, one for one.

Every rule is a pure function from a job to its problems. Defaults never offend: a field that has no effect in some combination is refused
only when it differs from its default, because the API server writes defaults out.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm

from trainjobs.api.family_rules import (
    SPEC,
    best_is_measured,
    critic_without_batch_norm,
    data_fields_fit,
    family_fits_data,
    fields_have_effect,
    heads_divide_hidden,
    metrics_exist,
    networks_fit_together,
    unet_fits_images,
)
from trainjobs.api.fields import seconds
from trainjobs.api.job import FAMILIES, NETWORKS, Job
from trainjobs.api.problem import Problem, did_you_mean, listed
from trainjobs.api.uris import prefix_problems, source_problems


def check(job: Job, workers: int | None = None) -> list[Problem]:
    """Every rule that the job breaks, in the order of the rules. `workers` stands for spec.compute.workers (`gtj run --workers`)."""
    return [
        *one_family(job),
        *batch_divides(job, workers),
        *stage_allows(job),
        *usable_uris(job),
        *one_beginning(job),
        *optimizers_name_networks(job),
        *family_fits_data(job),
        *data_fields_fit(job),
        *networks_fit_together(job),
        *critic_without_batch_norm(job),
        *unet_fits_images(job),
        *heads_divide_hidden(job),
        *metrics_exist(job),
        *best_is_measured(job),
        *fields_have_effect(job),
        *deepspeed_config_is_free(job),
        *worker_range_ascends(job),
        *interval_is_one(job),
        *environment_is_clear(job),
        *timeout_is_positive(job),
        *rollback_has_where_to(job),
    ]


def families(job: Job) -> list[str]:
    return [name for name in FAMILIES if getattr(job.spec, name) is not None]


def one_family(job: Job) -> Iterator[Problem]:
    given = families(job)
    if len(given) == 1:
        return
    if not given:
        how = "add one of them, such as `vae: {}`, which takes every default"
        yield Problem("GTJ0106", SPEC, "spec says nothing to train", f"exactly one of {listed(FAMILIES)} is needed", how, on_key=True)
    for name in given[1:]:
        how = f"keep one of {listed(given)}, and write one manifest per model"
        yield Problem("GTJ0106", (*SPEC, name), f"spec.{name} beside spec.{given[0]}", "a job trains exactly one family", how, on_key=True)


def batch_divides(job: Job, workers: int | None) -> Iterator[Problem]:
    """The global batch is constant, so it divides by each end of an elastic range of workers, by their GPUs, and by their micro-batches.

    Between its ends an elastic group only ever takes sizes that divide it, too: `Batch.sizes`.
    """
    batch = job.spec.training.batch
    low, high = (workers, workers) if workers else job.spec.compute.worker_range
    if low > high:
        return
    each = job.spec.compute.each
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
    yield Problem(
        "GTJ0103",
        (*SPEC, "training", "batch", "global"),
        f"a global batch of {batch.global_} does not divide by {by}",
        f"every {'GPU' if each > 1 else 'worker'} takes the same number of samples in each step",
        f"nearest sizes that do: {legal}{also}",
        beside=(*SPEC, "compute", "workers"),
    )


def stage_allows(job: Job) -> Iterator[Problem]:
    if job.spec.gan is None or job.spec.deepspeed.stage != 3:
        return
    why = "stage 3 splits the weights themselves, and two networks that take turns would gather each other's at every step"
    if job.spec.gan.loss.type == "wgan-gp":
        why = "the gradient penalty differentiates a gradient, and stage 3 has let go of the weights by the second backward pass"
    yield Problem("GTJ0104", (*SPEC, "deepspeed", "stage"), "a GAN cannot train at ZeRO stage 3", why, "use stage 0, 1, 2 or auto")


def usable_uris(job: Job) -> Iterator[Problem]:
    checkpoints = job.spec.checkpoints
    yield from source_problems(job.spec.data.source, (*SPEC, "data", "source"))
    if checkpoints.uri is not None:
        yield from prefix_problems(checkpoints.uri, (*SPEC, "checkpoints", "uri"))
    if checkpoints.resume_from not in ("latest", "none"):
        yield from prefix_problems(checkpoints.resume_from, (*SPEC, "checkpoints", "resumeFrom"))
    if job.spec.training.initial_weights is not None:
        yield from prefix_problems(
            job.spec.training.initial_weights, (*SPEC, "training", "initialWeights"), "weights lie in a folder of it"
        )


def one_beginning(job: Job) -> Iterator[Problem]:
    if job.spec.training.initial_weights is not None and job.spec.checkpoints.resume_from not in ("latest", "none"):
        what = "spec.training.initialWeights beside a checkpoint in spec.checkpoints.resumeFrom"
        why = "both say with which weights the run begins"
        how = "keep resumeFrom to go on at that checkpoint's step with its optimizer, initialWeights to begin at step 0 with a new one"
        yield Problem("GTJ0108", (*SPEC, "training", "initialWeights"), what, why, how, on_key=True)


def optimizers_name_networks(job: Job) -> Iterator[Problem]:
    if len(families(job)) != 1 or job.spec.custom is not None:
        return
    known = (*NETWORKS[job.spec.family], "default")
    for name in job.spec.training.optimizers:
        if name not in known:
            what = f'"{name}" is no network of a {job.spec.family}'
            how = did_you_mean(name, known) or "use default to mean all of them"
            yield Problem("GTJ0102", (*SPEC, "training", "optimizers", name), what, f"networks: {listed(known)}", how, on_key=True)


OURS = {
    "train_batch_size": "spec.training.batch.global",
    "train_micro_batch_size_per_gpu": "spec.training.batch.micro",
    "gradient_accumulation_steps": "spec.training.batch",
    "gradient_clipping": "spec.training.gradientClipping",
    "optimizer": "spec.training.optimizers",
    "scheduler": "spec.training.schedule",
    "bf16": "spec.training.precision",
    "fp16": "spec.training.precision",
}


def deepspeed_config_is_free(job: Job) -> Iterator[Problem]:
    """DeepSpeed's own JSON adds to the manifest and never contradicts it."""
    config, path = job.spec.deepspeed.config, (*SPEC, "deepspeed", "config")
    why = "two places for one setting would contradict each other"
    for key, field in OURS.items():
        if key in config:
            yield Problem("GTJ0108", (*path, key), f"{key} belongs to {field}", why, f"set {field} instead", on_key=True)
    zero = config.get("zero_optimization")
    if isinstance(zero, dict) and "stage" in zero:
        where = (*path, "zero_optimization", "stage")
        yield Problem("GTJ0108", where, "stage belongs to spec.deepspeed.stage", why, "set spec.deepspeed.stage instead", on_key=True)


def worker_range_ascends(job: Job) -> Iterator[Problem]:
    low, high = job.spec.compute.worker_range
    if low > high:
        what = f'"{job.spec.compute.workers}" is not a range of workers'
        yield Problem("GTJ0102", (*SPEC, "compute", "workers"), what, "the smaller number comes first", f'did you mean "{high}-{low}"?')


def interval_is_one(job: Job) -> Iterator[Problem]:
    every, path = job.spec.checkpoints.every, (*SPEC, "checkpoints", "every")
    if every is not None and (every.steps is None) == (every.minutes is None):
        what = "spec.checkpoints.every needs one of steps and minutes" if every.steps is None else "steps beside minutes"
        yield Problem(
            "GTJ0108", path, what, "there is one interval between checkpoints", "write `every: {steps: 100}` or `every: {minutes: 10}`"
        )


def environment_is_clear(job: Job) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, env in enumerate(job.spec.pod.env):
        path = (*SPEC, "pod", "env", index)
        if (env.value is None) == (env.secret_key_ref is None):
            what = f"{env.name} needs a value or a secretKeyRef" if env.value is None else f"{env.name} has both a value and a secretKeyRef"
            yield Problem("GTJ0108", path, what, "a variable has one value", "keep one of them: secretKeyRef for anything secret")
        if env.name in seen:
            yield Problem("GTJ0108", path, f"{env.name} is set twice", "the later one would win", "take one of them out")
        seen.add(env.name)


def timeout_is_positive(job: Job) -> Iterator[Problem]:
    timeout = job.spec.recovery.stall_timeout
    if seconds(timeout) == 0:
        path = (*SPEC, "recovery", "stallTimeout")
        yield Problem(
            "GTJ0102", path, f'"{timeout}" is not allowed for stallTimeout', "every step takes longer than that", "write 30m, say"
        )


def rollback_has_where_to(job: Job) -> Iterator[Problem]:
    """A batch that spoils the weights shows in the next step's loss: a checkpoint between the two is spoilt, the one before is needed."""
    if job.spec.recovery.on_loss_spike == "rollback" and job.spec.checkpoints.keep.last < 2:
        path, what = (*SPEC, "checkpoints", "keep", "last"), "recovery.onLossSpike: rollback needs the last two checkpoints"
        why = "the newest may have been taken just before the loss showed what had gone wrong"
        yield Problem("GTJ0108", path, what, why, "write `keep: {last: 2}` or more")
