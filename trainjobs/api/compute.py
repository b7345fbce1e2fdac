"""Which machines it is learned on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainjobs.api.fields import (
    LabelName,
    Model,
    ObjectName,
    PositiveInt,
)

Names = Annotated[list[LabelName], Field(max_length=16)]


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
