"""The status of a GenerativeTrainingJob: written by the operator, read by people, `kubectl` and `gtj`.

Numbers are integers or strings, after the Kubernetes conventions: a float does not survive every client unchanged.
Every limit here is also enforced by the API server, so what the operator writes is cut to size before.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model

Count = Annotated[int, Field(ge=0, le=2**53)]
Short = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(max_length=253)]
Line = Annotated[str, Field(max_length=1024)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=64)]

PHASES = ("Pending", "Queued", "Provisioning", "Starting", "Running", "Recovering", "Suspended", "Succeeded", "Failed")
Phase = Literal["Pending", "Queued", "Provisioning", "Starting", "Running", "Recovering", "Suspended", "Succeeded", "Failed"]
FailureClass = Literal["Infrastructure", "Preemption", "Application", "Configuration"]


class Condition(Model):
    """One condition, after KEP-1623."""

    type: Annotated[str, Field(max_length=64)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=64)]
    message: Line = ""
    observed_generation: Count | None = None
    last_transition_time: Time


class Restarts(Model):
    """Attempts that ended and were followed by another, by the class of what ended them."""

    infrastructure: Count = 0
    application: Count = 0
    preemption: Count = 0


class SinceProgress(Model):
    """Restarts that count against nothing, since the last checkpoint of a later step."""

    step: Count = Field(0, description="Step of that checkpoint.")
    restarts: Count = Field(0, description="Restarts with the present profile.")
    moves: Count = Field(0, description="How many profiles were passed over because no node took the pods.")
    free: Count = Field(0, description="All of them; the job ends when they reach 20.")


class Metric(Model):
    name: Short
    value: Short


class Throughput(Model):
    value: Short
    unit: Short


class Progress(Model):
    step: Count = 0
    total_steps: Count = 0
    samples: Count = 0
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    eta_seconds: Count | None = None
    updated_at: Time | None = None
    metrics: Annotated[list[Metric], Field(max_length=32)] | None = None
    throughput: Throughput | None = None
    display: Short = Field("", description='Percent and steps, e.g. "24% 1200/5000".')
    message: Line | None = Field(None, description="Why the trainer makes no steps just now; absent while it does.")


class LastCheckpoint(Model):
    uri: Line
    step: Count
    committed_at: Time | None = None
    size_bytes: Count | None = None
    fits_grace: bool | None = Field(None, description="Whether another one would be taken if the machines were taken back now.")


class Plan(Model):
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = None
    workers: Count | None = Field(None, description="Of an elastic group, as many as it has now.")
    profile: Short | None = None
    gpus_per_worker: Count | None = Field(None, description="As it was when the attempt began; what the attempt is priced by.")
    per_node: Count | None = Field(None, description="Accelerators of a node of the profile when the attempt began.")
    usd_per_node_hour: Short | None = Field(
        None, alias="usdPerNodeHour", description="Price of the profile when the attempt began; absent without one."
    )


class Cost(Model):
    usd: Short = Field("unknown", description='Cost so far, "unknown" without a price in the profile.')
    gpu_hours: Short = "0"
    rate_per_hour_usd: Short = Field("unknown", alias="ratePerHourUSD")
    seconds: Count | None = Field(None, description="How many of activeSeconds the figures here cover.")
    worker_seconds: Count | None = Field(None, description="Seconds of all workers together.")
    gpu_seconds: Count | None = Field(None, description="Seconds of all GPUs together.")
    micro_usd: Count | None = Field(None, alias="microUSD", description="Cost so far in millionths of a USD, each part at its own price.")
    minutes: Count | None = Field(None, description="Of an earlier operator; no longer written.")
    worker_minutes: Count | None = Field(None, description="Of an earlier operator; read once and no longer written.")


class FailureStatus(Model):
    """Why the job failed, or why its last attempt did."""

    code: Annotated[str, Field(max_length=7)]
    class_: FailureClass = Field(alias="class")
    summary: Line
    detail: Line = ""
    resolution: Line = ""
    rank: Count | None = None
    node: Name | None = None
    step: Count | None = None
    log_tail: Annotated[str, Field(max_length=4096)] | None = None


class RayStatus(Model):
    ray_job: Name | None = None
    ray_cluster: Name | None = None
    dashboard: Line | None = None


class Summary(Model):
    """Preformatted texts of the printer columns."""

    loss: Short = ""
    eta: Short = ""
    gpus: Short = ""
    restarts: Short = ""
    cost: Short = ""
    family: Short = ""
    zero: Short = ""
    throughput: Short = ""
    checkpoint: Short = ""
    reason: Short = ""


class Status(Model):
    observed_generation: Count | None = None
    phase: Phase | None = Field(None, description="A summary for people; programs read the conditions.")
    message: Line | None = None
    conditions: Annotated[list[Condition], Field(max_length=16)] | None = None
    attempts: Count | None = Field(None, description="RayJobs created so far.")
    ended: Count | None = Field(None, description="Attempts whose end has been accounted for; equal to attempts when none is under way.")
    restarts: Restarts | None = None
    since_progress: SinceProgress | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    active_seconds: Count | None = Field(
        None, description="Time in which head and workers of the attempts ran; waiting does not count. What the deadline counts."
    )
    active_until: Time | None = Field(None, description="Until when activeSeconds has been counted.")
    retry_at: Time | None = Field(None, description="When the next attempt starts.")
    progress: Progress | None = None
    checkpoint: LastCheckpoint | None = None
    plan: Plan | None = None
    cost: Cost | None = None
    failure: FailureStatus | None = None
    ray: RayStatus | None = None
    summary: Summary | None = None
