"""The GenerativeTrainingJob as users write it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.checkpoints import Checkpoints
from trainjobs.api.compute import Compute, Pod
from trainjobs.api.custom import Custom
from trainjobs.api.data import Data
from trainjobs.api.diffusion import Diffusion
from trainjobs.api.evaluation import Evaluation
from trainjobs.api.fields import (
    DecimalString,
    LabelName,
    Model,
    ObjectName,
    PositiveInt,
)
from trainjobs.api.gan import Gan
from trainjobs.api.language import Language
from trainjobs.api.recovery import Recovery
from trainjobs.api.training import DeepSpeed, Training
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
