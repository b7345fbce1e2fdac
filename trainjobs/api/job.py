"""The GenerativeTrainingJob as users write it."""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Any, Literal

from pydantic import Field

from trainjobs.api.families import Custom, Diffusion, Gan, Language, Vae
from trainjobs.api.fields import (
    DataUri,
    DecimalString,
    Duration,
    Identifier,
    LabelName,
    Model,
    ObjectName,
    StoreUri,
)

GROUP = "gentrain.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "GenerativeTrainingJob"

PositiveInt = Annotated[int, Field(ge=1, le=2**31 - 1)]
Names = Annotated[list[LabelName], Field(max_length=16)]


class Images(Model):
    size: Literal[8, 16, 32, 64, 128, 256] = Field(
        32, description="Height and width in pixels; other sizes are resized and centre-cropped."
    )
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for colour.")
    augment: Annotated[list[Literal["horizontalFlip"]], Field(max_length=8)] = Field(
        [], description="Random changes applied to each training image."
    )


class Text(Model):
    field: Identifier = Field("text", description="Field of a JSONL record that holds the text.")


class Data(Model):
    source: DataUri = Field(
        description="Folder or file (file://, s3://, gs://, az://), dataset (hf://), or builtin:digits, shapes, ring, stdlib-text."
    )
    images: Images = Images()
    text: Text = Text()
    holdout: Annotated[float, Field(ge=0, le=0.5)] = Field(0.05, description="Share of the data kept aside for the held-out loss.")


class Batch(Model):
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


class Optimizer(Model):
    name: Literal["adam", "adamw", "rmsprop", "sgd"] = Field("adamw", description="torch.optim's optimizer of that name.")
    learning_rate: Annotated[float, Field(gt=0, le=100)] = Field(1e-3, description="Peak learning rate.")
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.999], description="Adam's and AdamW's decay rates."
    )
    weight_decay: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="Decoupled for adamw, L2 otherwise.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Momentum of sgd and rmsprop.")


class Schedule(Model):
    name: Literal["constant", "linear", "cosine"] = Field("constant", description="Shape after the warm-up.")
    warmup_steps: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(0, description="Steps of linear warm-up from 0.")
    final_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Learning rate of the last step, as a share of the peak (linear and cosine)."
    )


class Ema(Model):
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="Weights averaged as decay * average + (1 - decay) * weights, after each step."
    )


class Training(Model):
    steps: PositiveInt = Field(description="Optimizer steps; for a GAN, generator steps.")
    batch: Batch = Batch()
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 computes in bfloat16 and keeps fp32 weights to update.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(0, description="Seed of weights, order, noise and augmentation.")
    optimizers: Annotated[dict[str, Optimizer], Field(max_length=8)] = Field(
        {}, description='One per trained network, by name; "default" for the rest.'
    )
    schedule: Schedule = Schedule()
    gradient_clipping: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0, description="Largest global L2 norm of a network's gradient; 0 for no clipping."
    )
    ema: Ema | None = Field(None, description="Exponential moving average of the weights, used for samples and evaluation.")
    initial_weights: StoreUri | None = Field(
        None,
        description="Weights to start from at step 0: a folder that gtj checkpoints export or transformers wrote, or a .safetensors file.",
    )

    def optimizer(self, network: str) -> Optimizer:
        """The optimizer of one network: its own, else "default", else AdamW's defaults."""
        return self.optimizers.get(network) or self.optimizers.get("default") or Optimizer()


class DeepSpeed(Model):
    stage: Literal["auto", 0, 1, 2, 3] = Field("auto", description="ZeRO stage; auto takes the lowest that fits.")
    offload: Literal["none"] = Field("none", description="Where optimizer states live when they do not fit.")
    config: dict[str, Any] = Field({}, description="DeepSpeed's own JSON, merged last.")


class Compute(Model):
    profiles: Names = Field([], description="ComputeProfiles tried in order.")
    workers: PositiveInt | Annotated[str, Field(max_length=16, pattern=r"^[1-9][0-9]*-[1-9][0-9]*$")] = Field(
        1,
        description='Number of workers, or "min-max" for an elastic group: as many as there is room for, of the numbers that divide '
        "the global batch.",
    )
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] = Field(
        1, description="GPUs of a worker, which trains with a process on each; 0 trains on CPU, with one process."
    )
    queue: LabelName | None = Field(None, description="Kueue LocalQueue.")

    @property
    def worker_range(self) -> tuple[int, int]:
        """(min, max) workers; equal when the group is not elastic."""
        if isinstance(self.workers, int):
            return self.workers, self.workers
        low, high = self.workers.split("-")
        return int(low), int(high)

    @property
    def each(self) -> int:
        """Processes of a worker."""
        return max(1, self.gpus_per_worker)

    @property
    def elastic(self) -> bool:
        low, high = self.worker_range
        return low != high


class EnvSecret(Model):
    name: ObjectName = Field(description="Secret.")
    key: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Key in the Secret.")


class Env(Model):
    name: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(description="Name of the variable.")
    value: Annotated[str, Field(max_length=4096)] | None = Field(None, description="Plain value; never a credential.")
    secret_key_ref: EnvSecret | None = Field(None, description="Value taken from a Secret.")


class Volume(Model):
    claim_name: ObjectName = Field(description="PersistentVolumeClaim in the job's namespace.")
    mount_path: Annotated[str, Field(max_length=1024, pattern=r"^/.+$")] = Field(description="Absolute path in the pods.")
    read_only: bool = Field(False, description="Mount read-only.")


class Pod(Model):
    """What a job may change about its pods; everything else belongs to its ComputeProfile."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None, description="Image of head and workers; default: the chart's trainer image."
    )
    image_pull_secrets: Annotated[list[ObjectName], Field(max_length=8)] = Field([], description="Secrets for private registries.")
    service_account_name: ObjectName | None = Field(None, description="Service account; default: the profile's.")
    env: Annotated[list[Env], Field(max_length=64)] = Field([], description="Environment of the trainer.")
    volumes: Annotated[list[Volume], Field(max_length=8)] = Field([], description="Claims mounted into the pods.")


class Every(Model):
    steps: PositiveInt | None = Field(None, description="Steps between checkpoints.")
    minutes: PositiveInt | None = Field(None, description="Minutes between checkpoints.")


class Best(Model):
    metric: Annotated[str, Field(min_length=1, max_length=63)] = Field(description="Name of an evaluation metric, e.g. heldout/loss.")
    mode: Literal["min", "max"] = Field("min", description="Whether lower or higher is better.")


class Keep(Model):
    last: Annotated[int, Field(ge=1, le=1000)] = Field(3, description="Newest checkpoints kept.")
    every_steps: PositiveInt | None = Field(None, description="Checkpoints at multiples of this are kept for ever.")
    best: Best | None = Field(None, description="The best checkpoint by a metric is kept.")
    pinned: Annotated[list[PositiveInt], Field(max_length=64)] = Field([], description="Checkpoints at these steps are kept for ever.")


class Checkpoints(Model):
    uri: StoreUri | None = Field(None, description="Prefix for checkpoints; gtj run without one uses the run folder.")
    every: Every | None = Field(None, description="Interval; default: a tenth of the steps. The last step is always saved.")
    keep: Keep = Keep()
    resume_from: Annotated[str, Field(max_length=1024, pattern=r"^(latest|none|(file://|s3://|gs://|az://).+)$")] = Field(
        "latest", description="latest, none, or a checkpoint's URI."
    )
    allow_optimizer_reset: bool = Field(
        False, description="Where optimizer or moving average differ from the checkpoint's, take its weights and begin the rest anew."
    )


class Evaluation(Model):
    every_steps: PositiveInt | None = Field(
        None, description="Steps between evaluations; default: a tenth of the steps. The last step is always evaluated."
    )
    metrics: Annotated[list[Literal["loss", "perplexity", "modes"]], Field(max_length=8)] = Field(
        ["loss"], description="loss: held-out loss; perplexity: language models; modes: modes of builtin:ring covered."
    )
    samples: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="Samples drawn at each evaluation.")


class LossSpike(Model):
    """What counts as a spike of a loss."""

    z_score: Annotated[float, Field(gt=1, le=1000)] = Field(
        8.0, description="A loss spikes when it is this many standard deviations above its moving average."
    )
    window: Annotated[int, Field(ge=2, le=10**6)] = Field(
        100, description="Steps over which average and deviation are taken; none is a spike before so many."
    )


class Recovery(Model):
    max_retries: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="Restarts after application failures; infrastructure failures are free."
    )
    on_non_finite_loss: Literal["rollback", "halt"] = Field("rollback", description="What a NaN or infinite loss does.")
    on_loss_spike: Literal["ignore", "warn", "rollback"] = Field(
        "ignore", description="What a loss far above its moving average does. Losses of GANs and rewards jump by nature."
    )
    loss_spike: LossSpike = LossSpike()
    max_rollbacks: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="How often an attempt goes back to a checkpoint and leaves batches out before it fails."
    )
    stall_timeout: Duration = Field("30m", description="Time without a step after which the job counts as stalled.")


class Budget(Model):
    max_usd: DecimalString = Field(alias="maxUSD", description="The job is stopped, after a checkpoint, when it has cost this much.")


class Spec(Model):
    gan: Gan | None = Field(None, description="Train a generative adversarial network.")
    vae: Vae | None = Field(None, description="Train a variational auto-encoder.")
    diffusion: Diffusion | None = Field(None, description="Train a diffusion model.")
    language: Language | None = Field(None, description="Train a language model.")
    custom: Custom | None = Field(None, description="Train your own networks and objective.")
    data: Data = Field(description="What is learned from.")
    training: Training = Field(description="How it is learned.")
    deepspeed: DeepSpeed = DeepSpeed()
    compute: Compute = Compute()
    pod: Pod = Pod()
    checkpoints: Checkpoints = Checkpoints()
    evaluation: Evaluation = Evaluation()
    recovery: Recovery = Recovery()
    budget: Budget | None = Field(None, description="Limit on cost.")
    suspend: bool = Field(False, description="True releases the job's resources after a checkpoint.")
    active_deadline_seconds: PositiveInt | None = Field(None, description="The job fails when it has run this long over all attempts.")
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="The job is deleted this long after it finished."
    )

    @property
    def family(self) -> str:
        """gan, vae, diffusion, language or custom."""
        return next(name for name in FAMILIES if getattr(self, name) is not None)


FAMILIES = ("gan", "vae", "diffusion", "language", "custom")
NETWORKS = {"gan": ("generator", "discriminator"), "vae": ("autoencoder",), "diffusion": ("denoiser",), "language": ("model",)}


class Metadata(Model):
    name: ObjectName = Field(description="Name of the job; run folder and pods are named after it.")
    namespace: LabelName | None = Field(None, description="Namespace on a cluster; ignored by gtj run.")
    labels: Annotated[dict[str, str], Field(max_length=64)] = Field({}, description="Labels of the object.")
    annotations: Annotated[dict[str, str], Field(max_length=64)] = Field({}, description="Annotations of the object.")
    uid: Annotated[str, Field(max_length=64)] | None = Field(None, description="Set by the API server.")


class Job(Model):
    """One manifest: kind GenerativeTrainingJob."""

    api_version: Literal["gentrain.dev/v1alpha1"]
    kind: Literal["GenerativeTrainingJob"]
    metadata: Metadata
    spec: Spec
