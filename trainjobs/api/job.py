"""The GenerativeTrainingJob as users write it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.checkpoints import Checkpoints
from trainjobs.api.compute import Compute, Pod
from trainjobs.api.custom import Custom
from trainjobs.api.data import Data
from trainjobs.api.diffusion import Diffusion
from trainjobs.api.evaluation import Evaluation
from trainjobs.api.fields import DecimalString, LabelName, Model, ObjectName, PositiveInt
from trainjobs.api.gan import Gan, corrected
from trainjobs.api.language import Language
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.api.recovery import Recovery
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.training import DeepSpeed, Optimizer, Training
from trainjobs.api.vae import Vae

GROUP = "gentrain.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "GenerativeTrainingJob"


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
    preflight: bool = Field(
        True,
        description="On a cluster, before the first attempt, a small pod without accelerators looks at image, account, store and data.",
    )
    suspend: bool = Field(False, description="True releases the job's resources after a checkpoint.")
    active_deadline_seconds: PositiveInt | None = Field(None, description="The job fails when it has run this long over all attempts.")
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="The job is deleted this long after it finished, and not before 15 s, so that whoever waits sees how it ended."
    )

    @property
    def reads_text(self) -> bool:
        """Whether what it learns from is text."""
        return self.language is not None and self.language.task != "caption"

    @property
    def learner(self) -> str:
        """The family, but that a captioner, which is a language model, learns from pictures."""
        return "captioner" if self.language is not None and not self.reads_text else self.family

    @property
    def families(self) -> list[str]:
        """Those that the manifest gives, of which there must be one."""
        return [name for name in FAMILIES if getattr(self, name) is not None]

    @property
    def family(self) -> str:
        """gan, vae, diffusion, language or custom."""
        return self.families[0]

    @property
    def samples_per_step(self) -> int:
        """What a half-life counts in: samples that a step takes from the data; of a GAN those of its discriminator's phase."""
        return self.training.batch.global_ * (self.gan.loss.critic_steps if self.gan else 1)

    def optimizer(self, network: str) -> Optimizer:
        """The optimizer of one network as it is used: the manifest's, corrected where a regulariser of it has steps of its own; of
        "model/2", the block two below the last of a base that is unfrozen, with a lower rate."""
        name, _, depth = network.partition("/")
        if depth and self.language is not None and self.language.unfreezing is not None:
            return self.language.unfreezing.slowed(self.training.optimizer(name), int(depth))
        chosen = self.training.optimizer(network)
        interval = self.gan.lazy.get(network) if self.gan else None
        return corrected(chosen, interval) if interval else chosen


FAMILIES = ("gan", "vae", "diffusion", "language", "custom")
NETWORKS = {"gan": ("generator", "discriminator"), "vae": ("autoencoder",), "diffusion": ("denoiser",), "language": ("model",)}
NOISE_SCHEDULE = "noise_schedule"  # a network of a diffusion model whose noise schedule is learned


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


def one_family(spec: Spec) -> Iterator[Breach]:
    given = spec.families
    if not given:
        how = "add one of them, such as `vae: {}`, which takes every default"
        yield Breach((), "spec says nothing to train", f"exactly one of {listed(FAMILIES)} is needed", how, on_key=True)
    for name in given[1:]:
        how = f"keep one of {listed(given)}, and write one manifest per model"
        yield Breach((name,), f"spec.{name} beside spec.{given[0]}", "a job trains exactly one family", how, on_key=True)


def optimizers_name_networks(family: str, spec: Spec) -> Iterator[Breach]:
    if spec.families != [family]:
        return
    learned = family == "diffusion" and spec.diffusion is not None and spec.diffusion.process.schedule == "learned"
    known = (*NETWORKS[family], *([NOISE_SCHEDULE] if learned else []), "default")
    for name in spec.training.optimizers:
        if name not in known:
            how = did_you_mean(name, known) or "use default to mean all of them"
            what, why = f'"{name}" is no network of a {family}', f"networks: {listed(known)}"
            yield Breach(("training", "optimizers", name), what, why, how, on_key=True)


RULES = (
    Rule(
        "spec",
        "GTJ0106",
        one_family,
        f"[{', '.join(f'has(self.{name})' for name in FAMILIES)}].exists_one(given, given)",
        f"exactly one of {listed(FAMILIES)} is needed",
    ),
    *(
        Rule(
            "spec",
            "GTJ0102",
            partial(optimizers_name_networks, family),
            f"!has(self.{family}) || self.training.optimizers.all(name, name in {[*networks, 'default']}"
            + (f" || (name == '{NOISE_SCHEDULE}' && self.diffusion.process.schedule == 'learned'))" if family == "diffusion" else ")"),
            f"training.optimizers names a network that a {family} does not have: {listed([*networks, 'default'])}",
        )
        for family, networks in NETWORKS.items()
    ),
)
