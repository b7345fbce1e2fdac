"""How it is learned."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Annotated, Any, Literal

from pydantic import Field

from trainjobs.api import uris
from trainjobs.api.fields import Model, PositiveInt, StoreUri
from trainjobs.api.only import only
from trainjobs.api.optimizer import EarlyStopping as EarlyStopping
from trainjobs.api.optimizer import Optimizer as Optimizer
from trainjobs.api.optimizer import Schedule as Schedule
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.tracking import Tracking


class Batch(Model):
    """Samples of one optimizer step, and how they are cut."""

    global_: PositiveInt = Field(64, alias="global", description="Samples per optimizer step, over all workers.")
    micro: PositiveInt | None = Field(
        None,
        description="Samples per forward pass and process, of which a worker has one for each GPU; default: global / processes, of an "
        "elastic group at most global / its largest number of them. The rest is gradient accumulation.",
    )

    def sizes(self, low: int, high: int, each: int = 1) -> tuple[int, ...]:
        """The numbers of workers from `low` to `high`, of `each` processes, that take equal parts of it, in order."""
        micro = (self.micro or 1) * each
        if self.global_ % micro:
            return ()
        parts = self.global_ // micro
        small = [size for size in range(1, isqrt(parts) + 1) if parts % size == 0]
        return tuple(size for size in sorted({*small, *(parts // size for size in small)}) if low <= size <= high)


DECAY = 0.999


class Ema(Model):
    """An exponential moving average of the weights."""

    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        DECAY, description="Weights averaged as decay * average + (1 - decay) * weights, after each step. Only without halfLife."
    )
    half_life: PositiveInt | None = Field(
        None,
        description="Instead of decay: samples after which weights count half [ema_kimg, in thousands]. The decay is 0.5 ** (samples of a "
        "step / halfLife); a step has batch.global samples, of a GAN times criticSteps.",
    )
    warmup: bool = Field(
        True,
        description="Lets the average follow a run that is still short: after step t, counted from 0, the decay is at most (1 + t) / "
        "(10 + t), and 0 after the first.",
    )

    def decays(self, batch: int) -> float:
        """The decay of an update once it is warm, at steps of so many samples."""
        return self.decay if self.half_life is None else float(0.5 ** (batch / self.half_life))


Pattern = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]


class Unfreeze(Model):
    """What begins to train at a later step."""

    step: PositiveInt = Field(description="Steps that are done when it begins.")
    patterns: Annotated[list[Pattern], Field(min_length=1, max_length=32)] = Field(description="As in freeze, of what is frozen.")


class Sparsity(Model):
    """Weights, or what layers put out, that are mostly 0."""

    weights: Annotated[float, Field(ge=0, le=1e3)] = Field(
        0.0,
        description="lambda of the L1 norm of matrices and filters, by proximal steps that make exact zeros; biases, norms and embeddings "
        "are left out [l1_lambda].",
    )
    activations: Annotated[float, Field(ge=0, le=1e3)] = Field(
        0.0, description="Weight in the loss of the mean absolute output of the layers [activity_regularizer]."
    )
    layers: Annotated[list[Pattern], Field(max_length=32)] = Field(
        [], description="Layers whose outputs count, by patterns on <network>.<path>; with activations."
    )


class Distillation(Model):
    """Learning what a frozen, mostly larger network makes of the same inputs."""

    teacher: StoreUri = Field(
        description="Folder that gtj checkpoints export wrote, of the same family; its network may have any size [teacher_model]."
    )
    weight: Annotated[float, Field(gt=0, le=1), only(progressive=False, because="whose loss is the teacher's alone")] = Field(
        0.5, description="Share of the loss that is the difference from the teacher's outputs; the rest is the model's own [alpha]."
    )
    features: Annotated[list[Pattern], Field(max_length=32), only(progressive=False, because="whose loss is the teacher's alone")] = Field(
        [],
        description="Layers, by patterns on <network>.<path>, whose outputs shall be those of the teacher's layers of the same names and "
        "shapes: the mean of their mean squared differences is added to that of the outputs [hidden states, hints].",
    )
    progressive: bool = Field(
        False,
        description="Of a diffusion model: each of the sampler.steps becomes what two of the teacher's are (Salimans and Ho, 2022). Begin "
        "with the teacher's weights, by initialWeights, and halve sampler.steps with each run [progressive distillation].",
    )


class Training(Model):
    steps: PositiveInt = Field(description="Optimizer steps; for a GAN, generator steps.")
    batch: Batch = Batch()
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="bf16 computes in bfloat16, fp16 in float16 with a loss scale that adapts [mixed_precision]; both keep fp32 weights to "
        "update.",
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(0, description="Seed of weights, order, noise and augmentation.")
    optimizers: Annotated[dict[str, Optimizer], Field(max_length=8)] = Field(
        {}, description='One per trained network, by name; "default" for the rest.'
    )
    schedule: Schedule = Schedule()
    early_stopping: EarlyStopping | None = Field(None, description="Ends the run when an evaluation's metric no longer gets better.")
    gradient_clipping: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0, description="Largest global L2 norm of a network's gradient; 0 for no clipping."
    )
    ema: Ema | None = Field(None, description="Exponential moving average of the weights, used for samples and evaluation.")
    freeze: Annotated[list[Pattern], Field(max_length=32)] = Field(
        [],
        description="Parameters that do not train, by patterns on <network>.<path>, such as discriminator.0 (all below it) or *.bias; "
        "batch norm among them keeps its statistics [freezeD, requires_grad].",
    )
    unfreeze: Annotated[list[Unfreeze], Field(max_length=32)] = Field(
        [], description="When frozen ones begin to train after all, with an optimizer that is new at that step [gradual unfreezing]."
    )
    sparsity: Sparsity = Sparsity()
    distillation: Distillation | None = Field(None, description="A teacher, of a language or diffusion model [knowledge distillation].")
    sync_batch_norm: bool = Field(
        False, description="Batch norm over the micro-batches of all workers at once, instead of each one's own [SyncBatchNorm]."
    )
    tracking: Tracking | None = Field(None, description="A tracker that is told the run's curves: W&B, MLflow or Trackio.")
    gradient_checkpointing: bool = Field(
        False,
        description="Blocks of a language or diffusion model keep only their inputs, and are computed again in the backward pass: less "
        "memory, about a third more time [activation checkpointing].",
    )
    compile: bool = Field(
        False,
        description="Repeated blocks of the networks are compiled at the first step, each kind once, by torch's compiler, which needs g++ "
        "on a CPU and Triton on a GPU: minutes before the first step, then less time for each [torch.compile].",
    )
    tf32: bool = Field(
        False,
        description="Matrix products of fp32 on a GPU take inputs rounded to 10 bits of mantissa, as convolutions there do by torch's "
        "default; no effect on a CPU, nor on what precision computes in 16 bits [allow_tf32].",
    )
    allow_partial_weights: bool = Field(
        False,
        description="initialWeights may lack tensors, have others, or of other shapes: what fits is taken, and the run's timeline says "
        "what was not [strict=False].",
    )
    initial_weights: StoreUri | None = Field(
        None,
        description="Weights to start from at step 0: a folder that gtj checkpoints export or transformers wrote, or a .safetensors file.",
    )

    def optimizer(self, network: str) -> Optimizer:
        """The optimizer of one network: its own, else "default", else AdamW's defaults."""
        return self.optimizers.get(network) or self.optimizers.get("default") or Optimizer()


class DeepSpeed(Model):
    """How states are spread over the processes."""

    stage: Literal["auto", 0, 1, 2, 3] = Field("auto", description="ZeRO stage; auto takes the lowest that fits.")
    offload: Literal["none"] = Field("none", description="Where optimizer states live when they do not fit.")
    config: dict[str, Any] = Field({}, description="DeepSpeed's own JSON, merged last.")


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


def weights_lie_somewhere(uri: str) -> Iterator[Breach]:
    return uris.prefix(uri, "weights lie in a folder of it")


def one_horizon(ema: Ema) -> Iterator[Breach]:
    """Defaults never offend: the API server writes them out."""
    if ema.half_life is not None and ema.decay != DECAY:
        what, why = "decay beside halfLife", "both say how far back the average reaches"
        yield Breach(("halfLife",), what, why, "keep one of them", on_key=True)


def config_is_free(config: dict[str, Any]) -> Iterator[Breach]:
    """DeepSpeed's own JSON adds to the manifest and never contradicts it."""
    why = "two places for one setting would contradict each other"
    for key, field in OURS.items():
        if key in config:
            yield Breach((key,), f"{key} belongs to {field}", why, f"set {field} instead", on_key=True)
    zero = config.get("zero_optimization")
    if isinstance(zero, dict) and "stage" in zero:
        where = ("zero_optimization", "stage")
        yield Breach(where, "stage belongs to spec.deepspeed.stage", why, "set spec.deepspeed.stage instead", on_key=True)


def partial_of_something(training: Training) -> Iterator[Breach]:
    if training.allow_partial_weights and training.initial_weights is None:
        how = "give initialWeights, or take it out"
        yield Breach(("allowPartialWeights",), "allowPartialWeights has no effect without initialWeights", how=how, on_key=True)


def activations_of_layers(sparsity: Sparsity) -> Iterator[Breach]:
    if sparsity.activations and not sparsity.layers:
        why, how = "nobody says of which layers", "name some in sparsity.layers, such as autoencoder.encoder.*"
        yield Breach(("activations",), "activations without layers", why, how, on_key=True)
    elif sparsity.layers and not sparsity.activations:
        yield Breach(("layers",), "layers has no effect without activations", how="give activations a weight, or take it out", on_key=True)


def frozen_before(training: Training) -> Iterator[Breach]:
    if training.unfreeze and not training.freeze:
        how = "name in freeze what shall not train from the start"
        yield Breach(("unfreeze",), "unfreeze has no effect without freeze", "everything trains from the first step", how, on_key=True)


RULES = (
    Rule(
        "spec.training",
        "GTJ0108",
        partial_of_something,
        "!self.allowPartialWeights || has(self.initialWeights)",
        "allowPartialWeights has no effect without initialWeights",
    ),
    Rule(
        "spec.training.sparsity",
        "GTJ0108",
        activations_of_layers,
        "(self.activations > 0.0) == (self.layers.size() > 0)",
        "activations and layers belong together: neither has an effect without the other",
    ),
    Rule(
        "spec.training",
        "GTJ0108",
        frozen_before,
        "self.unfreeze.size() == 0 || self.freeze.size() > 0",
        "unfreeze has no effect without freeze",
    ),
    Rule(
        "spec.training.initialWeights",
        "GTJ0107",
        weights_lie_somewhere,
        uris.PREFIX,
        "not a usable URI: a folder or file in a bucket or an absolute path, no user, query, fragment, space or ..",
    ),
    Rule("spec.training.distillation.teacher", "GTJ0107", weights_lie_somewhere, uris.PREFIX, uris.UNUSABLE),
    Rule(
        "spec.training.ema",
        "GTJ0108",
        one_horizon,
        f"!has(self.halfLife) || self.decay == {DECAY}",
        "decay beside halfLife: both say how far back the average reaches, keep one of them",
    ),
    # CEL cannot look into free-form maps; crd.py says it with `not`.
    Rule("spec.deepspeed.config", "GTJ0108", config_is_free),
)
